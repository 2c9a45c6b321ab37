"""The bias of classes that the transfer set lacks, or has too many of, mended on held-out rows.

A student that never saw a 3 knows one from its teacher's soft targets, but its bias for 3 has learnt that
none comes. One number, added to the logits of the classes concerned, takes that back: section 3 of the paper
has 206 test errors before, 133 of them threes, and 109 after, 14 of them threes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from softcask.pipeline.config.sections import ByKind
from softcask.pipeline.parts import Options
from softcask.pipeline.transfer_sets.base import SourceOptions
from softcask.pipeline.transfer_sets.registry import SOURCES
from softcask.storage_schemas.errors import ConfigError, StudentError

Objective = Literal["errors", "likelihood"]

_BEYOND = 1.0
_HALVINGS = 100


class BiasCorrectionOptions(Options):
    """`[bias_correction]`: which classes' logits are shifted together, once a student is trained.

    Attributes:
        classes: Names or indices; those that the transfer set lacks, or else all that it has.
        held_out: `[bias_correction.held_out]`: labelled rows to fit on, of any kind of source: neither those
            that the student is trained on nor those that it is evaluated on.
        objective: `errors`: fewest held-out rows not recognised, as the paper has it; `likelihood`: largest
            likelihood of their labels, which wavers less where they are few.
    """

    classes: tuple[StrictInt | str, ...] = Field(min_length=1)
    held_out: Annotated[SourceOptions, ByKind(SOURCES)]
    objective: Objective = "errors"

    def indices(self, class_names: Sequence[str]) -> tuple[int, ...]:
        """The classes' indices, rising.

        Raises:
            ConfigError: One that is unknown or named twice, or all of them.
        """
        found = [_index(one, class_names) for one in self.classes]
        if len(set(found)) < len(found):
            raise ConfigError(f"bias_correction.classes {list(self.classes)} name a class twice")
        if len(found) == len(class_names):
            raise ConfigError("bias_correction.classes name every class; a shift of all changes nothing")
        return tuple(sorted(found))


def fit_shift(
    logits_NC: NDArray[np.floating[Any]],
    labels_N: NDArray[np.int64],
    classes: Sequence[int],
    objective: Objective = "errors",
) -> float:
    """What to add to the logits of some classes, all alike; exact, without a grid or a step size.

    Args:
        logits_NC: Of held-out rows.
        labels_N: Their class indices.
        classes: Which logits are shifted.
        objective: See `BiasCorrectionOptions`.

    Returns:
        The shift, in nats. Of those that make the fewest errors, 0 if it is among them, else the middle of
        the widest interval of them.

    Raises:
        StudentError: All rows are of these classes, or none is: nothing holds a shift back.
    """
    among_C = np.zeros(logits_NC.shape[1], dtype=bool)
    among_C[list(classes)] = True
    if not 0 < (ours := int(among_C[labels_N].sum())) < len(labels_N):
        raise StudentError(
            f"{ours} of {len(labels_N)} held-out rows are of the classes {sorted(classes)}; expected rows of "
            "these and of others. Hold out rows of all classes, as the student will meet them"
        )
    wide_NC = logits_NC.astype(np.float64)
    ours_NC, others_NC = np.where(among_C, wide_NC, -np.inf), np.where(among_C, -np.inf, wide_NC)
    if objective == "likelihood":
        return _likeliest(_log_sums(ours_NC) - _log_sums(others_NC), ours)
    return _fewest_errors(
        others_NC.max(axis=1) - ours_NC.max(axis=1),
        gained_N=ours_NC.argmax(axis=1) == labels_N,
        lost_N=others_NC.argmax(axis=1) == labels_N,
    )


def _fewest_errors(
    needed_N: NDArray[np.float64], *, gained_N: NDArray[np.bool_], lost_N: NDArray[np.bool_]
) -> float:
    """The shift by which most rows are right.

    Args:
        needed_N: By how much each row's best of the classes lies below its best of the others: a larger shift
            than this makes it one of theirs.
        gained_N: Rows that are right then.
        lost_N: Rows that are right until then.
    """
    matter = gained_N | lost_N
    if not matter.any():
        return 0.0
    order = np.argsort(needed_N[matter])
    turns = needed_N[matter][order]
    change = np.where(gained_N[matter][order], 1, -1)
    right = np.concatenate([[0], np.cumsum(change)])
    starts = np.concatenate([[turns[0] - _BEYOND], turns])
    stops = np.concatenate([turns, [turns[-1] + _BEYOND]])
    attained = stops > starts  # rows that turn at the same shift turn together
    best = attained & (right == right[attained].max())
    if best[np.searchsorted(turns, 0.0)]:
        return 0.0
    widest = np.argmax(np.where(best, stops - starts, -np.inf))
    return float((starts[widest] + stops[widest]) / 2)


def _likeliest(odds_N: NDArray[np.float64], ours: int) -> float:
    """The shift at which as many rows are expected of the classes as there are: where the gradient is 0."""
    low, high = -odds_N.max() - 50, -odds_N.min() + 50
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (1 / (1 + np.exp(-(odds_N + middle)))).sum()
        low, high = (middle, high) if expected < ours else (low, middle)
    return float((low + high) / 2)


def _log_sums(logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    most_N1 = logits_NC.max(axis=1, keepdims=True)
    sums: NDArray[np.float64] = np.log(np.exp(logits_NC - most_N1).sum(axis=1)) + most_N1[:, 0]
    return sums


def _index(one: int | str, class_names: Sequence[str]) -> int:
    if isinstance(one, str) and one in class_names:
        return list(class_names).index(one)
    if isinstance(one, int) and 0 <= one < len(class_names):
        return one
    some = ", ".join(map(repr, class_names[:5]))
    raise ConfigError(
        f"bias_correction.classes: there is no class {one!r}; expected a name ({some}, ...) or an index from "
        f"0 to {len(class_names) - 1}"
    )
