"""The rows of a store: a segment's table, those of one unit, and the readable ones of all segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.checks import checked_rows
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import SegmentManifest
from softcask.storage_schemas.tables import ROWS, content_hashes_of


def read_rows(objects: StoreObjects, segment: SegmentManifest) -> pa.Table:
    """The rows' table of a segment, checked.

    Raises:
        CorruptObject: It is gone, its bytes are not those that were committed, or it holds other numbers of
            rows than the segment says.
    """
    return checked_rows(segment, objects.read_recorded(segment.table))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """The rows of one unit, quarantined ones among them.

    Attributes:
        segment: Their segment.
        view: Number of the view.
        index: Place of the unit in the segment.
        sample_ids: `[n]` strings, in Arrow's memory: a unit has thousands, of which a message names one.
        labels: `[n]`, -1 where a row has none.
        readable: `[n]`, False where a row is quarantined.
    """

    segment: SegmentManifest
    view: int
    index: int
    sample_ids: pa.Array
    labels: NDArray[np.int64]
    readable: NDArray[np.bool_]

    @property
    def unit(self) -> str:
        """The unit's name within its teacher."""
        return keys.unit_name(self.segment.segment, self.view, self.index)

    @property
    def readable_ids(self) -> pa.Array:
        """`sample_ids` of the readable rows."""
        return self.sample_ids if self.readable.all() else self.sample_ids.filter(pa.array(self.readable))

    @classmethod
    def of(cls, segment: SegmentManifest, table: pa.Table, view: int, index: int) -> UnitRows:
        """The rows of one unit, from its segment's whole table."""
        start, stop = segment.unit_range(index)
        part = table.slice(start, stop - start)
        return cls(
            segment=segment,
            view=view,
            index=index,
            sample_ids=part["sample_id"].combine_chunks(),
            labels=part["label"].fill_null(-1).to_numpy().astype(np.int64),
            readable=pc.is_null(part["quarantine"]).to_numpy(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Readable rows, numbered from 0 over all segments.

    Attributes:
        sample_ids: `[N]` str.
        content_hashes: `[N]` raw 16 bytes.
        labels: `[N]`, -1 where a row has none.
        segments: `[N]` number of each row's segment.
        positions: `[N]` each row's place within its segment.
    """

    sample_ids: NDArray[np.object_]
    content_hashes: NDArray[np.void]
    labels: NDArray[np.int64]
    segments: NDArray[np.int32]
    positions: NDArray[np.int64]
    _numbers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> Rows:
        """The readable rows of segments' tables, in order."""
        readable = [pc.is_null(table["quarantine"]) for table in tables]
        kept = [table.filter(mask) for table, mask in zip(tables, readable, strict=True)]
        positions = [np.flatnonzero(mask.to_numpy(zero_copy_only=False)) for mask in readable]
        whole = pa.concat_tables([ROWS.empty_table(), *kept])
        return cls(
            sample_ids=whole["sample_id"].to_numpy(zero_copy_only=False),
            content_hashes=content_hashes_of(whole),
            labels=whole["label"].fill_null(-1).to_numpy().astype(np.int64),
            segments=np.repeat(np.arange(len(kept), dtype=np.int32), [len(table) for table in kept]),
            positions=np.concatenate([np.empty(0, dtype=np.int64), *positions]),
        )

    def __len__(self) -> int:
        """Readable rows."""
        return len(self.sample_ids)

    def find(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """Row numbers `[B]` of these ids, -1 where the store has no such row."""
        if not self._numbers:
            self._numbers.update(zip(self.sample_ids.tolist(), range(len(self)), strict=True))
        return np.fromiter((self._numbers.get(name, -1) for name in sample_ids), np.int64, len(sample_ids))
