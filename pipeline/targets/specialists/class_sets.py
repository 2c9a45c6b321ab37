"""Which classes each specialist knows, and what follows from that for all rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import SpecialistsError


@dataclass(frozen=True, kw_only=True)
class ClassSets:
    """The classes `S_m` of M specialists; all others are a specialist's dustbin. Sets may overlap.

    Attributes:
        num_classes: C.
        sets: Class numbers of each specialist, in the order of its outputs.

    Raises:
        SpecialistsError: A set is empty, names a class twice or one that is not there, or leaves none out.
    """

    num_classes: int
    sets: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for number, classes in enumerate(self.sets):
            strange = [c for c in classes if not 0 <= c < self.num_classes]
            twice = len(classes) - len(set(classes))
            if strange or twice or not 0 < len(classes) < self.num_classes:
                raise SpecialistsError(
                    f"class set {number} has {len(classes)} classes, {twice} of them repeated, "
                    f"{len(strange)} outside of 0..{self.num_classes - 1} {strange[:5]}; expected at least "
                    "one class, each once, and at least one class left out for the dustbin"
                )

    @classmethod
    def of(cls, num_classes: int, sets: Iterable[Iterable[int]]) -> Self:
        """From class numbers in any form, numpy's integers too."""
        return cls(num_classes=num_classes, sets=tuple(tuple(int(c) for c in classes) for classes in sets))

    def __len__(self) -> int:
        """M."""
        return len(self.sets)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Each specialist's classes, as an index."""
        return iter(self._indices)

    @cached_property
    def holds_MC(self) -> NDArray[np.bool_]:
        """Whether specialist m knows class c."""
        holds_MC = np.zeros((len(self), self.num_classes), bool)
        for number, classes in enumerate(self):
            holds_MC[number, classes] = True
        return holds_MC

    @cached_property
    def groups(self) -> Groups:
        """Classes that the same specialists know, as one group each."""
        patterns_GM, group_C = np.unique(self.holds_MC.T, axis=0, return_inverse=True)
        in_group_CG = np.eye(len(patterns_GM))[group_C]
        return Groups(group_C=group_C, in_group_CG=in_group_CG, outside_GM=(~patterns_GM).astype(np.float64))

    @cached_property
    def _indices(self) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.array(classes, np.int64) for classes in self.sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Classes by who knows them: M disjoint sets make M groups, and one of what nobody knows.

    Attributes:
        group_C: Number of each class's group.
        in_group_CG: 1 where class c is of group g, float64.
        outside_GM: 1 where group g is in specialist m's dustbin, float64.
    """

    group_C: NDArray[np.intp]
    in_group_CG: NDArray[np.float64]
    outside_GM: NDArray[np.float64]
