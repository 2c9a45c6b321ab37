"""What lost documents of a store must have held, as far as a run's file, its rows and its teachers tell.

None of it is believed: it is taken only where it is, byte for byte, what was sealed.
"""

from __future__ import annotations

from functools import cached_property

import pyarrow as pa

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.pinning import manifest_beside_probe, probe_of_entry, probe_rows
from softcask.pipeline.precompute.codecs import settled_anew
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.preparation import rows_a_unit, teacher_manifest
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.pipeline.transfer_sets.text import dtype_name
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.probing import view_manifest
from softcask.pipeline.views.segments import SegmentRows, reader_of
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import SoftcaskError
from softcask.storage_schemas.manifest import ObjectRecord, RootManifest, SegmentManifest, TeacherManifest


class Candidates:
    """Made when asked for; None where the run cannot tell, or cannot load what would."""

    def __init__(self, config: RunConfig, objects: StoreObjects) -> None:
        """For the store of one run."""
        self._config, self._objects = config, objects

    def of(self, key: str) -> bytes | None:
        """What `key` must have held."""
        try:
            match key.split("/"):
                case ["softcask.json"]:
                    return RootManifest(class_names=self._config.classes.class_names).to_bytes()
                case ["transfer_set", segment, "segment.json"]:
                    return self._segment(segment)
                case ["transfer_set", segment, "rows.parquet"]:
                    return self._rows(segment)
                case ["views", _] if number := keys.view_number(key):
                    return self._view(number)
                case ["teachers", name, "teacher.json"]:
                    return self._teacher(name)
                case ["teachers", name, "probe.parquet"]:
                    return self._probe(name)
        except SoftcaskError:
            return None
        return None

    @cached_property
    def _source(self) -> TransferSet:
        return self._config.transfer_set.open()

    @cached_property
    def _index(self) -> pa.Table:
        return index_rows(
            self._source,
            num_classes=len(self._config.classes.class_names),
            max_quarantined=self._config.transfer_set.max_quarantined,
        )

    def _rows(self, segment: str) -> bytes:
        manifest = self._read_segment(segment)
        return tables.to_bytes(self._index.slice(manifest.first, manifest.rows))

    def _segment(self, segment: str) -> bytes:
        """Of a table that stands: what the rows say, behind those of the segments before."""
        key = keys.segment_rows(segment)
        data = self._objects.read(key)
        table = tables.from_bytes(data, tables.ROWS, key)
        before = [self._read_segment(keys.segment_name(n)) for n in range(keys.segment_number(segment))]
        anew = {each.name: settled_anew(self._config, self._objects, each) for each in self._config.teachers}
        settled = {name: known for name, known in anew.items() if known is not None}
        return SegmentManifest(
            segment=segment,
            first=sum(each.rows for each in before),
            rows=len(table),
            quarantined=len(table) - table["quarantine"].null_count,
            labelled=len(table) - table["label"].null_count,
            unit_rows=self._config.store.unit_rows or rows_a_unit(self._config, settled, len(table)),
            input_shape=self._source.input_shape,
            input_dtype=dtype_name(self._source.input_dtype),
            table=ObjectRecord.of(key, data),
        ).to_bytes()

    def _view(self, number: int) -> bytes | None:
        """By a few rows of the first segment, in this process."""
        if self._config.views is None or number not in self._config.views.numbers:
            return None
        add_to_path(self._config.python_path)
        views, first = Views.of(self._config.views), self._read_segment(keys.segment_name(0))
        rows = SegmentRows.of(read_rows(self._objects, first))
        return view_manifest(views, number, first.segment, rows, reader_of(self._source, first)).to_bytes()

    def _teacher(self, name: str) -> bytes | None:
        if (options := self._options(name)) is None:
            return manifest_beside_probe(self._objects.read(key := keys.probe(name)), key)
        if (settled := settled_anew(self._config, self._objects, options)) is None:
            return None
        add_to_path(self._config.python_path)
        return teacher_manifest(self._config, options, settled).to_bytes()

    def _probe(self, name: str) -> bytes:
        """By a pass over a few rows, in this process; of an entry that no model is run for, no rows."""
        key = keys.teacher_manifest(name)
        manifest = TeacherManifest.from_bytes(self._objects.read(key), key)
        if (options := self._options(name)) is None:
            return self._sealed(keys.probe(name), probe_of_entry(manifest), tables.PROBE.empty_table())
        add_to_path(self._config.python_path)
        first = read_rows(self._objects, self._read_segment(keys.segment_name(0)))
        return tables.to_bytes(probe_rows(options.load(), manifest, self._source, first))

    def _sealed(self, key: str, *forms: pa.Table) -> bytes:
        """The form of a table that was sealed; entries of before have it otherwise."""
        newest = newest_generation(self._objects)
        sealed = newest.manifests if newest else ()
        made = [tables.to_bytes(table) for table in forms]
        return next((data for data in made if ObjectRecord.of(key, data) in sealed), made[0])

    def _options(self, name: str) -> TeacherOptions | None:
        return next((teacher for teacher in self._config.teachers if teacher.name == name), None)

    def _read_segment(self, segment: str) -> SegmentManifest:
        key = keys.segment_manifest(segment)
        return SegmentManifest.from_bytes(self._objects.read(key), key)
