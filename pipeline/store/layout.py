"""Which arrays a teacher has over a segment: derived from two manifests, never read from Zarr metadata.

A reader that derives the layout cannot be led astray by an edited `zarr.json`; a writer compares the two.
"""

from __future__ import annotations

from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest
from softcask.storage_schemas.zarr_layout import ArrayLayout, group_metadata


def array_layouts(teacher: TeacherManifest, segment: SegmentManifest) -> dict[str, ArrayLayout]:
    """The arrays of a teacher's logits over one segment, by name."""
    columns = codec_from(teacher.codec).columns(teacher.num_classes)
    return {
        column.name: ArrayLayout(column=column, rows=segment.rows, unit_rows=segment.unit_rows)
        for column in columns
    }


def zarr_metadata(teacher: TeacherManifest, segment: SegmentManifest, view: int) -> dict[str, bytes]:
    """Every `zarr.json` of a teacher's logits over one segment and view, by key."""
    group = keys.logits_group(teacher.name, segment.segment, view)
    attributes = {"softcask": {"teacher": teacher.name, "codec": teacher.codec.model_dump(mode="json")}}
    documents = {f"{group}/zarr.json": group_metadata(attributes)}
    for name, layout in array_layouts(teacher, segment).items():
        documents[f"{group}/{name}/zarr.json"] = layout.metadata()
    return documents
