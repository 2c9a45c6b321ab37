"""Which objects hold a teacher's logits: derived from two manifests, never read from Zarr metadata.

A reader that derives the layout cannot be led astray by an edited `zarr.json`; a writer compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.growth import check_growth
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest
from softcask.storage_schemas.parquet_layout import PartLayout
from softcask.storage_schemas.zarr_layout import ArrayLayout, group_metadata


class UnitObject(Protocol):
    """One object of a unit: some of its columns."""

    @property
    def key(self) -> str:
        """Where it lies."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it holds."""

    def encode(self, columns: Mapping[str, NDArray[Any]], present_n: NDArray[np.bool_]) -> bytes:
        """The object.

        Args:
            columns: Values by name of the rows that have logits, in order.
            present_n: Which of the unit's n rows those are.
        """

    def decode(self, data: bytes) -> dict[str, NDArray[Any]]:
        """Values by name of all n rows of the unit; blank ones where a row has no logits.

        Raises:
            CorruptObject: Damaged, or not what this layout has.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A column's shard of a unit, in Zarr.

    Attributes:
        key: Where it lies.
        layout: The array it is part of.
        rows: n, rows of the unit.
    """

    key: str
    layout: ArrayLayout
    rows: int

    @property
    def columns(self) -> tuple[Column, ...]:
        """The one column."""
        return (self.layout.column,)

    def encode(self, columns: Mapping[str, NDArray[Any]], present_n: NDArray[np.bool_]) -> bytes:
        """See `UnitObject.encode`."""
        return self.layout.encode_shard(_scattered(self.layout.column, columns, present_n))

    def decode(self, data: bytes) -> dict[str, NDArray[Any]]:
        """See `UnitObject.decode`."""
        return {self.layout.column.name: self.layout.decode_shard(data, self.rows, self.key)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A unit's Parquet part, with all its columns.

    Attributes:
        key: Where it lies.
        layout: How it is written.
        start: First row of the unit in its segment.
        stop: End of its rows.
    """

    key: str
    layout: PartLayout
    start: int
    stop: int

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns of the codec."""
        return self.layout.columns

    def encode(self, columns: Mapping[str, NDArray[Any]], present_n: NDArray[np.bool_]) -> bytes:
        """See `UnitObject.encode`."""
        return self.layout.encode_part(self.start + np.flatnonzero(present_n), columns)

    def decode(self, data: bytes) -> dict[str, NDArray[Any]]:
        """See `UnitObject.decode`."""
        row_bytes = sum(column.row_bytes for column in self.columns)
        check_growth(len(data), (self.stop - self.start) * row_bytes, self.key)
        rows_R, values = self.layout.decode_part(data, self.start, self.stop, self.key)
        present_n = np.zeros(self.stop - self.start, dtype=np.bool_)
        present_n[rows_R - self.start] = True
        return {column.name: _scattered(column, values, present_n) for column in self.columns}


def array_layouts(teacher: TeacherManifest, segment: SegmentManifest) -> dict[str, ArrayLayout]:
    """The Zarr arrays of a teacher's logits over one segment, by name; none where they lie in Parquet."""
    if teacher.codec.container != "zarr":
        return {}
    columns = codec_from(teacher.codec).columns(teacher.stored_classes)
    return {
        column.name: ArrayLayout(
            column=column,
            rows=segment.rows,
            unit_rows=segment.unit_rows,
            compression=teacher.codec.compression,
        )
        for column in columns
    }


def unit_objects(
    teacher: TeacherManifest, segment: SegmentManifest, view: int, index: int
) -> tuple[UnitObject, ...]:
    """The objects that hold the logits of one unit."""
    start, stop = segment.unit_range(index)
    if teacher.codec.container == "parquet":
        layout = PartLayout(columns=codec_from(teacher.codec).columns(teacher.stored_classes))
        key = keys.logits_part(teacher.name, segment.segment, view, index)
        return (Part(key=key, layout=layout, start=start, stop=stop),)
    group = keys.logits_group(teacher.name, segment.segment, view)
    return tuple(
        Shard(key=f"{group}/{layout.shard_key(index)}", layout=layout, rows=stop - start)
        for layout in array_layouts(teacher, segment).values()
    )


def zarr_metadata(teacher: TeacherManifest, segment: SegmentManifest, view: int) -> dict[str, bytes]:
    """Every `zarr.json` of a teacher's logits over one segment and view, by key."""
    layouts = array_layouts(teacher, segment)
    if not layouts:
        return {}
    group = keys.logits_group(teacher.name, segment.segment, view)
    attributes = {"softcask": {"teacher": teacher.name, "codec": teacher.codec.model_dump(mode="json")}}
    documents = {f"{group}/zarr.json": group_metadata(attributes)}
    for name, layout in layouts.items():
        documents[f"{group}/{name}/zarr.json"] = layout.metadata()
    return documents


def _scattered(
    column: Column, columns: Mapping[str, NDArray[Any]], present_n: NDArray[np.bool_]
) -> NDArray[Any]:
    values = columns[column.name]
    if len(values) == len(present_n):
        return values
    spread = column.blank(len(present_n))
    spread[present_n] = values
    return spread
