"""What is checked of a teacher's logits: usable, still those of the same teacher, better than guessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.absent import Absent
from softcask.storage_schemas.errors import ManifestMismatch, TeacherError

NUM_PROBES = 32
PROBE_TOLERANCE = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""By the dtype that a teacher computes in: how far a logit of a probe row may be off, in standard deviations
of the stored probe logits. Meant to cover other devices, thread counts and kernels. Seen on a small
convolutional net on a CPU: 1e-6 between kernels in float32; float16 is 1e-3 and bfloat16 1e-2 from float32.
One more step of SGD is off by 2e-2, another epsilon in its batch norm by 9e-2."""

_FEWEST_LABELS = 20


def check_logits(
    logits_BC: NDArray[np.float32],
    *,
    num_classes: int,
    teacher: str,
    unit: str,
    sample_ids: Sequence[str],
    absent: Absent = (),
) -> None:
    """Refuse logits that cannot be stored.

    Args:
        logits_BC: What the teacher gave for rows `sample_ids`.
        num_classes: Classes that the store has for this teacher.
        teacher: Its name, for the message.
        unit: The unit that is being labelled, for the message.
        sample_ids: Ids `[B]` of the rows, Python's strings or Arrow's.
        absent: Classes that are -inf in every row.

    Raises:
        TeacherError: Wrong number of rows or classes, NaN, infinite, or a number where a class is absent.
    """
    if logits_BC.shape != (len(sample_ids), num_classes):
        raise TeacherError(
            f"teacher {teacher!r}, unit {unit}: expected logits of shape {[len(sample_ids), num_classes]}, "
            f"found {list(logits_BC.shape)}. The store has {num_classes} classes; if the teacher has more, "
            "or has them in another order, say which are which with class_map"
        )
    usable_BC = np.isfinite(logits_BC)
    if absent:
        usable_BC[:, absent] = np.isneginf(logits_BC[:, absent])
    if not usable_BC.all():
        _refuse_unusable(logits_BC, usable_BC, teacher, unit, sample_ids)


def _refuse_unusable(
    logits_BC: NDArray[np.float32],
    usable_BC: NDArray[np.bool_],
    teacher: str,
    unit: str,
    sample_ids: Sequence[str],
) -> NoReturn:
    row, column = np.argwhere(~usable_BC)[0]
    if not np.isneginf(logits_BC[row, column]) and np.isfinite(logits_BC[row, column]):
        raise TeacherError(
            f"teacher {teacher!r}, unit {unit}: class {column} is one of absent_classes, -inf in every row, "
            f"and is {logits_BC[row, column]} in row {str(sample_ids[row])!r}. Take it out of absent_classes "
            "(in a new store or under a new name, if units are committed)"
        )
    unusable = ~usable_BC
    nans = int((np.isnan(logits_BC) & unusable).sum())
    others = int(unusable.sum()) - nans
    rows = f"{int((~usable_BC).any(axis=1).sum())} of {len(sample_ids)} rows"
    raise TeacherError(
        f"teacher {teacher!r}, unit {unit}: {nans} NaN and {others} infinite logits in {rows}, "
        f"first in row {str(sample_ids[row])!r}, class {column}: {logits_BC[row, column]}. Look at that row, "
        "the preprocessing and the weights; float16 overflows above 65504, where float32 and bfloat16 do not"
        + _padding(logits_BC, usable_BC)
    )


def _padding(logits_BC: NDArray[np.float32], usable_BC: NDArray[np.bool_]) -> str:
    """What to say of classes that are -inf in all rows of a batch."""
    everywhere_C = np.isneginf(logits_BC).all(axis=0)
    if len(logits_BC) < 2 or usable_BC[:, everywhere_C].all():
        return ""
    everywhere = np.flatnonzero(everywhere_C)
    spans = np.split(everywhere, np.flatnonzero(np.diff(everywhere) > 1) + 1)
    shown = ", ".join(f'"{span[0]}-{span[-1]}"' if len(span) > 1 else str(span[0]) for span in spans[:8])
    return (
        ". Or it is one of the classes that are -inf in all rows here: if those are so in every row, as of a "
        f"padded output layer, say so in the teacher's section: absent_classes = [{shown}]"
    )


def probe_positions(num_rows: int, readable: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Positions of up to 32 readable rows, spread evenly; all of them where there are fewer.

    Args:
        num_rows: Rows of the segment.
        readable: `[num_rows]`, False where a row is quarantined; None: all can be read.
    """
    rows = np.arange(num_rows) if readable is None else np.flatnonzero(readable)
    count = min(NUM_PROBES, len(rows))
    chosen: NDArray[np.int64] = rows[np.arange(count) * len(rows) // max(count, 1)].astype(np.int64)
    return chosen


def compare_probe(
    stored_PC: NDArray[np.floating],
    fresh_PC: NDArray[np.floating],
    *,
    teacher: str,
    tolerance: float = PROBE_TOLERANCE["float32"],
) -> None:
    """Refuse a teacher that no longer gives the logits its name was pinned with.

    Args:
        stored_PC: Logits of the probe rows when the teacher was first run.
        fresh_PC: Logits of the same rows now.
        teacher: Its name, for the message.
        tolerance: Largest difference allowed, in standard deviations of `stored_PC`; see `PROBE_TOLERANCE`.

    Raises:
        ManifestMismatch: The shapes differ, or a logit is off by more.
    """
    stored, fresh = stored_PC.astype(np.float64), fresh_PC.astype(np.float64)
    if stored.shape != fresh.shape:
        raise ManifestMismatch(
            f"teacher {teacher!r}: its probe rows had logits of shape {list(stored.shape)} when it was first "
            f"run, now {list(fresh.shape)}. {_PROBE_ADVICE}"
        )
    if not stored.size:
        return
    # Constant logits have no spread; what is left then is rounding of their size.
    spread = max(float(stored.std()), 1e-3 * float(np.abs(stored).max()), 1e-30)
    off = np.abs(fresh - stored) / spread
    if not (worst := float(off.max())) <= tolerance:
        row = int(np.argmax(off.max(axis=1)))
        raise ManifestMismatch(
            f"teacher {teacher!r}: its fingerprint is the one that the store has, but its logits are not. "
            f"In probe row {row} of {len(stored)} a logit is off by {worst:.3g} standard deviations, "
            f"{tolerance:g} is allowed. {_PROBE_ADVICE}"
        )


_PROBE_ADVICE = (
    "A fingerprint does not see changed code behind the factory, another library version, or weights that "
    "the factory fetches itself. Give the teacher a new name, and its new code a code_version, or go back to "
    "the code that the store was made with"
)


def near_chance(correct: int, labelled: int, num_classes: int) -> bool:
    """Whether a teacher's top-1 looks like guessing, as it does when its classes are in another order.

    True where top-1 is at most three times chance (a random order of many classes leaves three or fewer of
    them in place in 98 of 100 cases) and at most a tenth of the way from chance to perfect (the lower line
    for fewer than 22 classes: 0.55 for 2 classes, 0.19 for 10). From a thousand rows on, luck does not lift a
    guess over that line (3 sigma, unless the classes are about as many as the rows). Below 20 labelled rows
    nothing can be said, and the answer is False.

    Args:
        correct: Labelled rows whose largest logit is their label.
        labelled: Labelled rows.
        num_classes: Classes.
    """
    if labelled < _FEWEST_LABELS or num_classes < 2:
        return False
    chance = 1 / num_classes
    return correct <= labelled * min(3 * chance, chance + 0.1 * (1 - chance))
