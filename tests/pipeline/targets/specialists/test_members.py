"""What cannot be merged is refused with its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.members import Members
from softcask.storage_schemas.errors import SpecialistsError

SETS = ClassSets.of(4, [(0, 1), (2,)])
FINE: dict[str, Any] = {
    "sets": SETS,
    "specialists": (np.array([[0.2, 0.3, 0.5]] * 2), np.array([[0.2, 0.8]] * 2)),
    "generalist": np.full((2, 4), 0.25),
}


@pytest.mark.parametrize("sets", [[()], [(0, 0)], [(4,)], [(-1,)], [(0, 1, 2, 3)]])
def test_a_set_that_is_none_is_refused_by_number(sets: list[tuple[int, ...]]) -> None:
    with pytest.raises(SpecialistsError, match="class set 0"):
        ClassSets.of(4, sets)


def test_classes_that_the_same_specialists_know_are_one_group() -> None:
    groups = ClassSets.of(6, [(0, 1, 2), (2, 3)]).groups
    assert len(groups.outside_GM) == 4
    assert groups.group_C[0] == groups.group_C[1] and groups.group_C[4] == groups.group_C[5]
    assert groups.outside_GM[groups.group_C].tolist() == [[0, 1], [0, 1], [0, 0], [1, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specialists": FINE["specialists"][:1]}, "2 class sets met 1 specialists"),
        ({"weights": (1.0,)}, "2 specialists and 1 weights"),
        ({"weights": (1.0, 0.0)}, "a weight is 0.0"),
        ({"generalist_weight": float("nan")}, "a weight is nan"),
        ({"generalist": np.full((2, 5), 0.2)}, r"the generalist is of shape \[2, 5\]; expected \[2, 4\]"),
        ({"generalist": np.full((3, 4), 0.25)}, r"specialist 0 is of shape \[2, 3\]; expected \[3, 3\]"),
        (
            {"generalist": np.array([[0.25] * 4, [1.5, -0.5, 0, 0]])},
            "row 1 of the generalist has least value -0.5",
        ),
        ({"generalist": np.array([[np.nan] * 4, [0.25] * 4])}, "row 0 of the generalist"),
        (
            {"specialists": (FINE["specialists"][0], np.array([[0.2, 0.8], [3.0, 1.0]]))},
            "row 1 of specialist 1",
        ),
        ({"generalist": [[0.25] * 4] * 2}, "members came as list, ndarray"),
        ({"generalist": torch.full((2, 4), 0.25)}, "members came as Tensor, ndarray"),
        ({"active_BM": np.ones((2, 2))}, "expected booleans"),
        ({"active_BM": np.ones((2, 3), bool)}, r"active_BM is of shape \[2, 3\]"),
        ({"sets": ClassSets.of(4, []), "specialists": (), "generalist": None}, "neither a generalist nor"),
    ],
)
def test_members_that_do_not_fit_are_refused_with_their_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecialistsError, match=message):
        Members(**(FINE | change))


def test_a_generalist_without_specialists_is_itself() -> None:
    from softcask.pipeline.targets.specialists.kl import merge

    p = np.array([[0.1, 0.2, 0.7]])
    merged = merge(Members(sets=ClassSets.of(3, []), specialists=(), generalist=p))
    np.testing.assert_allclose(np.exp(merged.log_q_BC), p, rtol=1e-14)
