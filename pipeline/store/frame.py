"""A store as a pandas frame, for people who look before they train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from softcask.pipeline.store.reader import Store


def to_pandas(
    store: Store,
    teachers: str | list[str] | None,
    *,
    temperature: float | None,
    sample_ids: list[str] | None,
    view: int,
) -> pd.DataFrame:
    """The frame that `Store.to_pandas` gives."""
    import pandas as pd

    names = [teachers] if isinstance(teachers, str) else teachers or sorted(store.teachers)
    rows_B = _row_numbers(store, sample_ids)
    labels = pd.Series(store.rows.labels[rows_B], dtype="Int32")
    labels[labels < 0] = pd.NA
    frames = []
    for name in names:
        values_BC = store.logits(name, rows_B, view=view)
        if temperature is not None:
            check_temperature(store, name, temperature)
            values_BC = _softmax(values_BC, temperature)
        frame = pd.DataFrame(values_BC, columns=list(store.class_names[: values_BC.shape[1]]))
        frame.insert(0, "teacher", name)
        frame.insert(1, "sample_id", store.rows.sample_ids[rows_B])
        frame.insert(2, "label", labels)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def check_temperature(store: Store, teacher: str, temperature: float) -> None:
    """Refuse a temperature for which the teacher's codec makes no claim.

    Raises:
        StoreError: It is outside the codec's range, or no positive number.
    """
    codec = codec_from(store.teacher(teacher).codec)
    least, most = codec.temperatures
    if not least <= temperature <= most:
        raise StoreError(
            f"temperature {temperature} asked of teacher {teacher!r}, whose codec {codec.name} is good for "
            f"{least} to {most}"
        )


def _row_numbers(store: Store, sample_ids: list[str] | None) -> NDArray[np.int64]:
    if sample_ids is None:
        return np.arange(len(store.rows), dtype=np.int64)
    rows_B = store.rows.find(sample_ids)
    if (missing := np.flatnonzero(rows_B < 0)).size:
        raise StoreError(
            f"{store.uri} has no row {sample_ids[missing[0]]!r} ({missing.size} of the ids are unknown)"
        )
    return rows_B


def _softmax(logits_BC: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    scaled_BC = (logits_BC.astype(np.float64) - logits_BC.max(axis=1, keepdims=True)) / temperature
    exp_BC = np.exp(scaled_BC)
    probabilities_BC: NDArray[np.float32] = (exp_BC / exp_BC.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities_BC
