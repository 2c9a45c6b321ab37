"""Softcask's codecs as the comparison sees them: bytes of the objects that a store would hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from logit_sources import LogitSource
from numpy.typing import NDArray
from rivals.base import Kept, Rows

from softcask.storage_schemas import npy
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.lowrank.calibration import Calibration
from softcask.storage_schemas.codecs.topk import Settings as TopKSettings
from softcask.storage_schemas.codecs.topk import TopK
from softcask.storage_schemas.parquet_layout import PartLayout
from softcask.storage_schemas.zarr_layout import ArrayLayout

HELD_BACK = 0.08
"""Share of the rows to fit on that `lowrank` chooses its sizes by."""

_BLOCK = 64


def calibrations(source: LogitSource) -> tuple[Calibration, ...]:
    """`lowrank` on the source's rows to fit on, with either coder; the last rows choose its sizes."""
    held_back = int(len(source.fit_NC) * HELD_BACK)
    zstd = Calibration.of(
        source.fit_NC[:-held_back], source.fit_NC[-held_back:], output_layer=source.output_layer_CD
    )
    ans = Calibration(
        spectrum=zstd.spectrum,
        calibration_Rm=zstd.calibration_Rm,
        held_out_RC=zstd.held_out_RC,
        held_out_Rm=zstd.held_out_Rm,
        temperatures=zstd.temperatures,
        coder="ans",
        white_box=zstd.white_box,
    )
    return zstd, ans


def lowrank(calibration: Calibration, rows: Rows, budget: int) -> Kept:
    """Fitted to the budget; judged on rows it has not seen, which with the footer must not take more."""
    asked = float(budget)
    while True:
        codec = calibration.within_bytes(asked).codec
        settings = codec.settings
        sizes = f"head {settings.head_size}, rank {settings.rank}, step {settings.step:.3g}"
        kept = keep(f"lowrank {settings.coder}: {sizes}", codec, rows)
        if kept.bytes_a_row <= budget:
            return kept
        asked -= max(0.25, kept.bytes_a_row - budget)


def topk(rows: Rows, budget: int) -> Kept | None:
    """As many classes as the budget holds."""

    def codec(k: int) -> TopK:
        return TopK(settings=TopKSettings(num_classes=rows.classes, head_size=k))

    def size(k: int) -> int:
        return sum(column.row_bytes for column in codec(k).columns(rows.classes))

    k = min(1 + (budget - size(1)) // (size(2) - size(1)), rows.classes)
    return keep(f"topk, k {k}", codec(k), rows) if k > 0 else None


def dense(rows: Rows) -> Iterator[Kept]:
    """All classes, at a byte and at two each."""
    yield keep("dense8", Dense8(), rows)
    yield keep("dense16", Dense16(), rows)


def keep(name: str, codec: Codec, rows: Rows) -> Kept:
    """Encode all rows as one unit, and measure its objects."""
    blocks = [codec.encode(rows.logits_NC[first : first + _BLOCK]) for first in range(0, len(rows), _BLOCK)]
    columns = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}

    def decode(at: slice, temperature: float) -> NDArray[np.float32]:
        return codec.decode({key: values[at] for key, values in columns.items()}, temperature).shifted_BC

    once = sum(len(npy.to_bytes(array)) for array in codec.arrays().values())
    return Kept(
        name=name,
        bytes_a_row=_stored_bytes(codec, columns, rows) / len(rows),
        decode=decode,
        once_bytes=once,
    )


def _stored_bytes(codec: Codec, columns: dict[str, NDArray[np.generic]], rows: Rows) -> int:
    made, count = codec.columns(rows.classes), len(rows)
    if codec.container == "parquet":
        return len(PartLayout(columns=made).encode_part(np.arange(count), columns))
    layouts = [ArrayLayout(column=column, rows=count, unit_rows=count) for column in made]
    return sum(len(layout.encode_shard(columns[layout.column.name])) for layout in layouts)
