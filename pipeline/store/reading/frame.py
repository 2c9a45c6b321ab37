"""Soft targets as a pandas frame, for people who look before they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.softmax import softmax

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_OTHERS = ("teacher", "sample_id", "label")


def soft_target_frame(
    logits: Mapping[str, NDArray[np.float32]],
    *,
    class_names: Sequence[str],
    sample_ids: NDArray[np.object_],
    labels_B: NDArray[np.int64],
    temperature: float | None,
) -> pd.DataFrame:
    """One row a teacher and sample, one column a class.

    Args:
        logits: Raw logits `[B, C]` by teacher.
        class_names: Names of the C columns. A class that bears the name of one of the other columns gets
            " (class)" behind it.
        sample_ids: `[B]` ids.
        labels_B: Class indices, -1 where a row has none.
        temperature: Probabilities at this T; None leaves logits.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise StoreError(
            "a frame needs pandas, which is not installed: pip install 'softcask[pandas]'"
        ) from error
    names = [f"{name} (class)" if name in _OTHERS else name for name in class_names]
    labels = pd.Series(labels_B, dtype="Int32")
    labels[labels < 0] = pd.NA
    if not logits:
        return pd.DataFrame(columns=[*_OTHERS, *names])
    frames = []
    for teacher, logits_BC in logits.items():
        values_BC = logits_BC if temperature is None else softmax(logits_BC, temperature)
        frame = pd.DataFrame(values_BC, columns=names)
        frame.insert(0, "teacher", teacher)
        frame.insert(1, "sample_id", sample_ids)
        frame.insert(2, "label", labels)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
