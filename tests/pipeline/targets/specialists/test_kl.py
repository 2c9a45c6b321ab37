"""The merge by divergence: against L-BFGS on the paper's objective, the closed form, and what must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pipeline.targets.specialists.cases import (
    Floats,
    distributions,
    least_by_lbfgs,
    objective,
    opinions,
    random_members,
    with_dustbins,
)

from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.kl import merge
from softcask.pipeline.targets.specialists.members import Members
from softcask.storage_schemas.errors import SpecialistsError

anyone = st.builds(
    random_members,
    st.integers(0, 2**32 - 1),
    generalist=st.booleans(),
    overlapping=st.booleans(),
    rows=st.integers(1, 4),
)


@pytest.mark.parametrize("overlapping", [False, True], ids=["disjoint", "overlapping"])
@pytest.mark.parametrize("generalist", [False, True], ids=["alone", "generalist"])
def test_the_objective_is_as_low_as_lbfgs_finds_it_on_250_cases(generalist: bool, overlapping: bool) -> None:
    for seed in range(25):
        members = random_members(seed, generalist=generalist, overlapping=overlapping)
        merged = merge(members)
        for row in range(len(members)):
            said = opinions(members, row)
            least = least_by_lbfgs(said, members.sets.num_classes)
            found = objective(said, merged.log_q_BC[row])
            assert found == pytest.approx(least, abs=1e-9), (seed, row)
            assert found - merged.gap_B[row] <= least + 1e-12, "the gap is a bound"


@settings(deadline=None, max_examples=200)
@given(anyone)
def test_q_is_a_distribution_whose_gap_is_next_to_nothing(members: Members[Floats]) -> None:
    merged = merge(members)
    assert not np.isnan(merged.log_q_BC).any()
    np.testing.assert_allclose(np.exp(merged.log_q_BC).sum(-1), 1, rtol=0, atol=1e-12)
    assert merged.gap_B.max() <= 1e-9


def one_specialist(dustbin_B: Floats) -> Members[Floats]:
    random = np.random.default_rng(3)
    B = len(dustbin_B)
    specialist = with_dustbins(distributions(random, B, 4, 2.0), dustbin_B)
    return Members(
        sets=ClassSets.of(7, [(5, 0, 3)]),
        specialists=(specialist,),
        generalist=distributions(random, B, 7, 2.0),
    )


def test_one_specialist_has_the_closed_form() -> None:
    members = one_specialist(np.array([0.0, 1.0, 1e-30, 0.3, 0.9]))
    assert members.generalist is not None
    expected = members.generalist.copy()
    expected[:, (5, 0, 3)] = (members.generalist[:, (5, 0, 3)] + members.specialists[0][:, :-1]) / 2
    outside = (1, 2, 4, 6)
    left = 1 - expected[:, (5, 0, 3)].sum(-1)
    expected[:, outside] *= (left / members.generalist[:, outside].sum(-1))[:, None]
    np.testing.assert_allclose(np.exp(merge(members).log_q_BC), expected, rtol=1e-12)


def test_a_specialist_that_did_not_see_a_row_takes_no_part_in_it_whatever_it_holds_there() -> None:
    members = one_specialist(np.array([0.2, 0.2, 0.2]))
    assert members.generalist is not None
    said = members.specialists[0].copy()
    said[1] = np.nan
    seen = replace(members, specialists=(said,), active_BM=np.array([[True], [False], [True]]))
    log_q = merge(seen).log_q_BC
    np.testing.assert_allclose(log_q[1], np.log(members.generalist[1]), rtol=1e-13)
    assert np.abs(log_q[0] - np.log(members.generalist[0])).max() > 0.01


@settings(deadline=None, max_examples=100)
@given(anyone, st.floats(0.01, 100))
def test_a_specialist_that_agrees_with_the_generalist_changes_nothing(
    members: Members[Floats], weight: float
) -> None:
    random = np.random.default_rng(len(members))
    generalist = distributions(random, len(members), members.sets.num_classes, 3.0)
    before = merge(replace(members, generalist=generalist))
    agreeing = tuple(
        np.concatenate([generalist[:, c], 1 - generalist[:, c].sum(-1, keepdims=True)], -1)
        for c in members.sets
    )
    alone = replace(members, generalist=generalist, specialists=agreeing, weights=(weight,) * len(agreeing))
    np.testing.assert_allclose(merge(alone).log_q_BC, np.log(generalist), rtol=0, atol=1e-8)
    # And one that agrees with what the others make of it leaves that alone, too.
    q = np.exp(before.log_q_BC)
    first = members.sets.sets[0]
    joined = Members(
        sets=ClassSets.of(members.sets.num_classes, [*members.sets.sets, first]),
        specialists=(
            *members.specialists,
            np.concatenate([q[:, first], np.maximum(0, 1 - q[:, first].sum(-1, keepdims=True))], -1),
        ),
        generalist=generalist,
        active_BM=(
            None
            if members.active_BM is None
            else np.concatenate([members.active_BM, np.ones((len(members), 1), bool)], -1)
        ),
        weights=(*members.specialist_weights, weight),
        generalist_weight=members.generalist_weight,
    )
    np.testing.assert_allclose(np.exp(merge(joined).log_q_BC), q, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(anyone, st.randoms(use_true_random=False))
def test_numbering_classes_otherwise_numbers_q_otherwise(members: Members[Floats], random: object) -> None:
    order = list(range(members.sets.num_classes))
    random.shuffle(order)  # type: ignore[attr-defined]
    place = np.argsort(order)
    other = replace(
        members,
        sets=ClassSets.of(len(order), [[place[c] for c in classes] for classes in members.sets.sets]),
        generalist=None if members.generalist is None else members.generalist[:, order],
    )
    np.testing.assert_allclose(
        np.exp(merge(other).log_q_BC), np.exp(merge(members).log_q_BC[:, order]), rtol=0, atol=1e-5
    )


@settings(deadline=None, max_examples=100)
@given(anyone)
def test_rows_merged_one_by_one_are_as_rows_merged_together(members: Members[Floats]) -> None:
    together = np.exp(merge(members).log_q_BC)
    for row in range(len(members)):
        one = slice(row, row + 1)
        alone = replace(
            members,
            specialists=tuple(said[one] for said in members.specialists),
            generalist=None if members.generalist is None else members.generalist[one],
            active_BM=None if members.active_BM is None else members.active_BM[one],
        )
        np.testing.assert_allclose(np.exp(merge(alone).log_q_BC[0]), together[row], rtol=0, atol=1e-5)


def test_alone_specialists_leave_their_dustbin_to_the_prior() -> None:
    sets = ClassSets.of(5, [(0, 1)])
    said = np.array([[0.3, 0.2, 0.5]])
    uniform = merge(Members(sets=sets, specialists=(said,))).log_q_BC
    np.testing.assert_allclose(np.exp(uniform), [[0.3, 0.2, 1 / 6, 1 / 6, 1 / 6]], rtol=1e-9)
    prior = np.array([9.0, 9.0, 1.0, 2.0, 2.0])
    stated = merge(Members(sets=sets, specialists=(said,)), prior_C=prior).log_q_BC
    np.testing.assert_allclose(np.exp(stated), [[0.3, 0.2, 0.1, 0.2, 0.2]], rtol=1e-9)


def test_a_row_that_nobody_saw_is_the_prior() -> None:
    members = Members(
        sets=ClassSets.of(4, [(0, 1)]),
        specialists=(np.full((1, 3), np.nan),),
        active_BM=np.array([[False]]),
    )
    np.testing.assert_allclose(
        np.exp(merge(members, prior_C=np.array([1.0, 2.0, 3.0, 4.0])).log_q_BC),
        [[0.1, 0.2, 0.3, 0.4]],
        rtol=1e-12,
    )


def test_a_class_that_all_who_know_it_call_impossible_stays_so() -> None:
    members = Members(
        sets=ClassSets.of(4, [(0, 1)]),
        specialists=(np.array([[0.0, 0.5, 0.5]]),),
        generalist=np.array([[0.0, 0.5, 0.25, 0.25]]),
    )
    np.testing.assert_allclose(np.exp(merge(members).log_q_BC), [[0.0, 0.5, 0.25, 0.25]], rtol=1e-12)


def test_small_probabilities_come_out_as_exact_as_large_ones() -> None:
    generalist = np.array([[1.0, 1e-30, 2e-30, 1e-18]])
    generalist[0, 0] = 1 - generalist[0, 1:].sum()
    specialist = np.array([[0.75, 0.25]])
    merged = merge(Members(sets=ClassSets.of(4, [(0,)]), specialists=(specialist,), generalist=generalist))
    # The closed form: (1 + .75) / 2 for the specialist's class, the others scaled to what is left.
    scale = 0.125 / generalist[0, 1:].sum()
    np.testing.assert_allclose(np.exp(merged.log_q_BC), [[0.875, *(generalist[0, 1:] * scale)]], rtol=1e-9)


def test_float32_members_give_float32_as_near_as_it_can_be() -> None:
    members = random_members(11, generalist=True, overlapping=True)
    assert members.generalist is not None
    single = replace(
        members,
        specialists=tuple(said.astype(np.float32) for said in members.specialists),
        generalist=members.generalist.astype(np.float32),
    )
    found = merge(single).log_q_BC
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), np.exp(merge(members).log_q_BC), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "prior", [np.ones(3), np.array([0.0, 1, 1, 1]), np.array([np.nan, 1, 1, 1]), np.array([np.inf, 1, 1, 1])]
)
def test_a_prior_that_leaves_a_class_out_is_refused(prior: Floats) -> None:
    members = Members(sets=ClassSets.of(4, [(0, 1)]), specialists=(np.array([[0.3, 0.2, 0.5]]),))
    with pytest.raises(SpecialistsError, match="expected 4 finite numbers above 0"):
        merge(members, prior_C=prior)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_prior_without_weight_is_refused(weight: float) -> None:
    members = Members(sets=ClassSets.of(4, [(0, 1)]), specialists=(np.array([[0.3, 0.2, 0.5]]),))
    with pytest.raises(SpecialistsError, match="prior_weight"):
        merge(members, prior_weight=weight)


def test_a_prior_of_some_weight_is_one_more_member_that_speaks_of_unknown_classes_alone() -> None:
    # -.6 log q_0 - .4 log(1 - q_0) - .5 log(1 - q_0), least at q_0 = .6 / 1.5.
    members = Members(sets=ClassSets.of(3, [(0,)]), specialists=(np.array([[0.6, 0.4]]),))
    merged = merge(members, prior_C=np.array([1.0, 1.0, 2.0]), prior_weight=0.5 / 0.75)
    np.testing.assert_allclose(np.exp(merged.log_q_BC), [[0.4, 0.2, 0.4]], rtol=1e-9)
