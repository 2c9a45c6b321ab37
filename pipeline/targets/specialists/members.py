"""What a generalist and its specialists think of the same rows: all that a merge is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

from softcask.pipeline.targets.specialists.arrays import Array, ArrayT, double, like, namespace
from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.storage_schemas.errors import SpecialistsError

SUM_WITHIN = 1e-3
"""How far from 1 the probabilities of a row may sum up: float16 ones do."""


@dataclass(frozen=True, kw_only=True)
class Members(Generic[ArrayT]):
    """Probabilities at T = 1 of B rows: numpy arrays, or tensors of one device.

    Merge first and temper the result: a dustbin's logit divided by T is not the dustbin of tempered classes.

    Attributes:
        sets: Which classes each specialist knows.
        specialists: A `[B, K_m + 1]` array each: the classes of its set in their order, its dustbin last.
        generalist: `[B, C]`, or None: specialists decide alone.
        active_BM: Whether specialist m saw row b. One that did not takes no part in that row, whatever its
            array holds there. None: all saw all.
        weights: Of the specialists, positive; None: 1 each, as in the paper.
        generalist_weight: Of the generalist, positive.

    Raises:
        SpecialistsError: Shapes that do not fit, or a row that is no distribution; the message says which.
    """

    sets: ClassSets
    specialists: tuple[ArrayT, ...]
    generalist: ArrayT | None = None
    active_BM: ArrayT | None = None
    weights: tuple[float, ...] | None = None
    generalist_weight: float = 1.0

    def __post_init__(self) -> None:
        M = len(self.sets)
        if len(self.specialists) != M or (self.weights is not None and len(self.weights) != M):
            raise SpecialistsError(
                f"{M} class sets met {len(self.specialists)} specialists"
                + ("" if self.weights is None else f" and {len(self.weights)} weights")
                + "; expected one of each for every set"
            )
        if self.generalist is None and not M:
            raise SpecialistsError("neither a generalist nor a specialist was given; expected at least one")
        everyone = (*self.specialists, self.generalist, self.active_BM)
        kinds = {type(array).__name__ for array in everyone if array is not None}
        if len(kinds) > 1 or not kinds <= {"ndarray", "Tensor"}:
            raise SpecialistsError(
                f"members came as {', '.join(sorted(kinds))}; expected all numpy arrays or all tensors"
            )
        for weight in (*self.specialist_weights, self.generalist_weight):
            if not (math.isfinite(weight) and weight > 0):
                raise SpecialistsError(
                    f"a weight is {weight!r}; expected a finite number above 0; leave out who shall not count"
                )
        self._check_rows()

    def _check_rows(self) -> None:
        B, C = len(self), self.sets.num_classes
        if self.active_BM is not None:
            _check_shape("active_BM", self.active_BM, (B, len(self.sets)))
            if self.active_BM.dtype != namespace(self.active_BM).bool:
                raise SpecialistsError(f"active_BM is of {self.active_BM.dtype}; expected booleans")
        if self.generalist is not None:
            _check_shape("the generalist", self.generalist, (B, C))
            _check_distributions("the generalist", double(self.generalist))
        for number, (classes, specialist) in enumerate(zip(self.sets, self.specialists, strict=True)):
            _check_shape(f"specialist {number}", specialist, (B, len(classes) + 1))
            _check_distributions(f"specialist {number}", double(specialist), self.active(number))

    def __len__(self) -> int:
        """B."""
        return len(self._first)

    @property
    def _first(self) -> Array:
        return self.specialists[0] if self.generalist is None else self.generalist

    @property
    def specialist_weights(self) -> tuple[float, ...]:
        """One each."""
        return (1.0,) * len(self.sets) if self.weights is None else self.weights

    @property
    def dtype(self) -> object:
        """Of what is merged: float64 if a member is, or else float32."""
        xp = namespace(self._first)
        everyone = (*self.specialists, *(() if self.generalist is None else (self.generalist,)))
        return xp.float64 if any(member.dtype == xp.float64 for member in everyone) else xp.float32

    def zeros(self, columns: int) -> Array:
        """`[B, columns]`, float64, where the members are."""
        xp = namespace(self._first)
        return xp.zeros((len(self), columns), dtype=xp.float64, device=self._first.device)

    def like(self, values: Array) -> Array:
        """A numpy array where the members are."""
        return like(self._first, values)

    def active(self, number: int) -> Array:
        """`[B]`: which rows a specialist saw; None: all."""
        return None if self.active_BM is None else self.active_BM[:, number]

    def seen(self, number: int) -> Array:
        """What a specialist said, float64; 0 throughout where it saw nothing, dustbin included."""
        said = double(self.specialists[number])
        active_B = self.active(number)
        return said if active_B is None else namespace(said).where(active_B[:, None], said, 0.0)


def _check_shape(what: str, array: Array, expected: tuple[int, ...]) -> None:
    if tuple(array.shape) != expected:
        raise SpecialistsError(f"{what} is of shape {list(array.shape)}; expected {list(expected)}")


def _check_distributions(what: str, rows: Array, active_B: Array = None) -> None:
    xp = namespace(rows)
    # Written so that NaN is wrong, too.
    wrong = ~((xp.amin(rows, -1) >= 0) & (xp.abs(xp.sum(rows, -1) - 1) <= SUM_WITHIN))
    if active_B is not None:
        wrong = wrong & active_B
    if bool(wrong.any()):
        row = int(xp.argmax(xp.asarray(wrong, dtype=xp.int64)))
        raise SpecialistsError(
            f"row {row} of {what} has least value {float(xp.amin(rows[row], -1))!r} and sum "
            f"{float(xp.sum(rows[row], -1))!r}; expected probabilities of sum 1 (softmax at T = 1; a "
            "specialist's dustbin last)"
        )
