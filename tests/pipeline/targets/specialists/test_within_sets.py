"""Rules that keep each set's mass, against the same formulas written out row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pipeline.targets.specialists.cases import Floats, distributions, random_members

from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.members import Members
from softcask.pipeline.targets.specialists.within_sets import arithmetic, geometric
from softcask.storage_schemas.errors import SpecialistsError

Rule = Callable[[Members[Floats]], Floats]
RULES: list[Rule] = [arithmetic, geometric]
anyone = st.builds(
    random_members, st.integers(0, 2**32 - 1), generalist=st.just(True), overlapping=st.booleans()
)


def two_sets() -> Members[Floats]:
    random = np.random.default_rng(8)
    return Members(
        sets=ClassSets.of(6, [(4, 1), (0, 3, 2)]),
        specialists=(distributions(random, 5, 3, 2), distributions(random, 5, 4, 2)),
        generalist=distributions(random, 5, 6, 2),
        active_BM=np.array([[True, True]] * 4 + [[True, False]]),
        weights=(1.0, 3.0),
        generalist_weight=2.0,
    )


@pytest.mark.parametrize("rule", RULES)
def test_within_disjoint_sets_both_are_averaged_and_the_sets_mass_is_kept(
    rule: Rule,
) -> None:
    members = two_sets()
    assert members.generalist is not None and members.active_BM is not None
    found = np.exp(rule(members))
    for row, p in enumerate(members.generalist):
        expected = p.copy()
        for number, (classes, weight) in enumerate(zip(members.sets.sets, (1.0, 3.0), strict=True)):
            if members.active_BM[row, number]:
                c = list(classes)
                ours = p[c] / p[c].sum()
                theirs = members.specialists[number][row, :-1]
                theirs = theirs / theirs.sum()
                if rule is arithmetic:
                    mean = (2 * ours + weight * theirs) / (2 + weight)
                else:
                    mean = (ours**2 * theirs**weight) ** (1 / (2 + weight))
                expected[c] = p[c].sum() * mean / mean.sum()
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=100)
@given(anyone)
def test_q_is_a_distribution_that_leaves_what_nobody_holds(rule: Rule, members: Members[Floats]) -> None:
    q = np.exp(rule(members))
    assert members.generalist is not None
    np.testing.assert_allclose(q.sum(-1), 1, rtol=0, atol=1e-12)
    free = ~members.sets.holds_MC.any(0)
    np.testing.assert_allclose(q[:, free], members.generalist[:, free], rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=50)
@given(anyone)
def test_specialists_that_agree_change_nothing_even_where_sets_overlap(
    rule: Rule, members: Members[Floats]
) -> None:
    assert members.generalist is not None
    p = members.generalist
    agreeing = tuple(
        np.concatenate([p[:, c], np.maximum(0, 1 - p[:, c].sum(-1, keepdims=True))], -1) for c in members.sets
    )
    q = np.exp(rule(replace(members, specialists=agreeing)))
    np.testing.assert_allclose(q, p, rtol=1e-9)


def test_where_sets_overlap_a_class_has_the_mean_of_its_specialists_revisions() -> None:
    members = Members(
        sets=ClassSets.of(4, [(0, 1), (1, 2)]),
        specialists=(np.array([[0.6, 0.2, 0.2]]), np.array([[0.1, 0.1, 0.8]])),
        generalist=np.array([[0.2, 0.2, 0.2, 0.4]]),
    )
    # Revisions: .4 * (.625, .375) and .4 * (.5, .5); the class between has (.15 + .2) / 2; then scaled to .6.
    held = np.array([0.25, 0.175, 0.2])
    np.testing.assert_allclose(np.exp(arithmetic(members)), [[*(held * 0.6 / held.sum()), 0.4]], rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_a_specialist_that_puts_all_in_its_dustbin_leaves_its_set_alone(
    rule: Rule,
) -> None:
    members = Members(
        sets=ClassSets.of(3, [(0, 1)]),
        specialists=(np.array([[0.0, 0.0, 1.0]]),),
        generalist=np.array([[0.2, 0.3, 0.5]]),
    )
    np.testing.assert_allclose(np.exp(rule(members)), [[0.2, 0.3, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_generalist_there_is_no_mass_to_keep(rule: Rule) -> None:
    members = Members(sets=ClassSets.of(3, [(0, 1)]), specialists=(np.array([[0.2, 0.3, 0.5]]),))
    with pytest.raises(SpecialistsError, match="merge by the rule kl"):
        rule(members)
