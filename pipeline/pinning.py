"""A teacher's name, pinned to what the teacher is: its fingerprint, and the logits of a few probe rows.

The name is pinned by the first worker that has loaded the teacher and seen usable logits from it, and stays
free to be pinned anew until a unit is committed: a mistake found at the first batch costs no name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.foreign_arrays import ForeignArrays
from softcask.pipeline.store.layout import zarr_metadata
from softcask.pipeline.store.receipts import committed_units, read_commit
from softcask.pipeline.teachers.base import Teacher, TeacherOptions
from softcask.pipeline.teachers.checks import PROBE_TOLERANCE, check_logits, compare_probe, probe_positions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.absent import without_absent
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch, StoreError
from softcask.storage_schemas.fingerprint import canonical, differences
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest

_STATE = b"state_digest"
_MANIFEST = b"teacher.json"


def is_pinned(objects: StoreObjects, wanted: TeacherManifest) -> bool:
    """Whether the name is pinned to this very teacher already.

    Raises:
        ManifestMismatch: It is pinned to something else, and units are committed under it; lists the fields.
    """
    key = keys.teacher_manifest(wanted.name)
    if (data := objects.read_if_present(key)) is None:
        return False
    standing = TeacherManifest.from_bytes(data, key)
    lines = differences(canonical(wanted.pinned()), canonical(standing.pinned()))
    if lines and (committed := len(committed_units(objects, wanted.name))):
        raise ManifestMismatch(
            f"teacher {wanted.name!r} of {objects.uri} is pinned to something else than this run's, with "
            f"{committed} units committed:\n  "
            + "\n  ".join(lines)
            + "\nGive the changed teacher a new name, or set these back. Nothing was changed."
        )
    return not lines


def pin(
    objects: StoreObjects,
    teacher: Teacher,
    options: TeacherOptions,
    wanted: TeacherManifest,
    source: TransferSet,
    segments: Sequence[tuple[SegmentManifest, pa.Table]],
    *,
    views: Sequence[int] = (0,),
) -> None:
    """Pin a loaded teacher's name, or find it pinned to the same; then the metadata of its arrays stands.

    Args:
        objects: The store.
        teacher: As loaded.
        options: As configured.
        wanted: What to pin the name to.
        source: Where rows are read.
        segments: Manifests and tables of the segments; probe rows are of the first, as they are.
        views: Numbers of the views that are to be labelled; of a name that is pinned already, only view 0 is
            looked at, and `publish_metadata` is called for others when their first unit comes.

    Raises:
        ManifestMismatch: The name belongs to another teacher, or parameters or probe logits are not those
        that it
            was pinned with.
        TeacherError: The teacher's logits cannot be stored.
    """
    fresh = probe_rows(teacher, wanted, source, segments[0][1])
    if _pin(objects, wanted, [segment for segment, _ in segments], views, fresh):
        _compare(objects, fresh, options)


def pin_without_model(
    objects: StoreObjects,
    wanted: TeacherManifest,
    segments: Sequence[SegmentManifest],
    *,
    views: Sequence[int] = (0,),
) -> None:
    """Pin the name of an entry that no model is run for, imported or derived; it has no probe rows.

    No run's file tells what its manifest held, so that stands a second time in the table of its probe rows.

    Raises:
        ManifestMismatch: The name belongs to another teacher.
    """
    _pin(objects, wanted, segments, views, probe_of_entry(wanted))


def probe_of_entry(wanted: TeacherManifest) -> pa.Table:
    """No rows, and the manifest of an entry that no model is run for."""
    return tables.PROBE.empty_table().replace_schema_metadata({_MANIFEST: wanted.to_bytes()})


def manifest_beside_probe(data: bytes, key: str) -> bytes | None:
    """The manifest that stands in a table of `probe_of_entry`; untrusted.

    Raises:
        CorruptObject: The table is damaged.
    """
    found: dict[bytes, bytes] = tables.from_bytes(data, tables.PROBE, key).schema.metadata or {}
    return found.get(_MANIFEST)


def _pin(
    objects: StoreObjects,
    wanted: TeacherManifest,
    segments: Sequence[SegmentManifest],
    views: Sequence[int],
    probe: pa.Table,
) -> bool:
    """Whether the name was pinned to this very teacher before."""
    if is_pinned(objects, wanted):
        for segment in segments:
            publish_metadata(objects, wanted, segment, 0)
        return True
    metadata = {
        key: document
        for segment, view in product(segments, views)
        for key, document in zarr_metadata(wanted, segment, view).items()
    }
    _pin_anew(objects, wanted, {**metadata, keys.probe(wanted.name): tables.to_bytes(probe)})
    return False


def publish_metadata(
    objects: StoreObjects, wanted: TeacherManifest, segment: SegmentManifest, view: int
) -> None:
    """Let the metadata of a teacher's arrays over a segment and view stand.

    Arrays that another tool wrote stay as they are, as long as nothing is to be written to them.

    Raises:
        StoreError: Something is to be written to an array that another tool wrote.
        CorruptObject: What stands is not what follows from the manifests.
    """
    try:
        for key, document in zarr_metadata(wanted, segment, view).items():
            objects.publish_equal(key, document)
    except CorruptObject:
        generation = newest_generation(objects)
        foreign = ForeignArrays(objects, generation.manifests if generation else ())
        if not foreign.of(wanted, segment, view):
            raise
        units = {keys.unit_name(segment.segment, view, index) for index in range(segment.units)}
        if missing := units - committed_units(objects, wanted.name):
            raise StoreError(
                f"{len(missing)} units of teacher {wanted.name!r} over segment {segment.segment} of "
                f"{objects.uri} are not committed, and its arrays there were written by another tool: "
                "softcask reads them, and writes none. Label under another name, or finish them there."
            ) from None


def _pin_anew(objects: StoreObjects, wanted: TeacherManifest, documents: Mapping[str, bytes]) -> None:
    """Write a free name's documents, then look whether it was still free.

    Who commits looks at the pin once more when its receipt is written (see `commit.py`). Of two that meet at
    least one sees the other and takes back what it wrote.
    """
    manifest = keys.teacher_manifest(wanted.name)
    before = {key: objects.read_if_present(key) for key in (*documents, manifest)}
    try:
        # The manifest last: who finds it finds all that it speaks of.
        for key, data in documents.items():
            objects.replace(key, data)
        if not objects.publish(manifest, wanted.to_bytes()) and not is_pinned(objects, wanted):
            objects.replace(manifest, wanted.to_bytes())
        _refuse_units_of_others(objects, wanted)
    except ManifestMismatch:
        for key, old in before.items():
            if old is not None:
                objects.replace(key, old)
        raise


def _refuse_units_of_others(objects: StoreObjects, wanted: TeacherManifest) -> None:
    """Another run may have committed between this one's look at its units and the new pin."""
    mismatch: ManifestMismatch | None = None
    for unit in sorted(committed_units(objects, wanted.name)):
        try:
            if read_commit(objects, wanted, unit) is not None:
                return  # the name is this teacher's; what others write now they take back themselves
        except ManifestMismatch as error:
            mismatch = error
    if mismatch is not None:
        raise ManifestMismatch(
            f"teacher {wanted.name!r} of {objects.uri} is pinned to something else than this run's, and "
            "another run has just committed a unit under it. Give the changed teacher a new name. "
            "The name is pinned to what it was."
        ) from mismatch


def probe_rows(teacher: Teacher, wanted: TeacherManifest, source: TransferSet, rows: pa.Table) -> pa.Table:
    """Logits of the probe rows, in one batch, with the digest of the teacher's parameters."""
    positions_P = probe_positions(len(rows), pc.is_null(rows["quarantine"]).to_numpy())
    ids = rows["sample_id"].take(pa.array(positions_P)).to_pylist()
    logits_PC = np.empty((0, wanted.num_classes), dtype=np.float32)
    if len(positions_P):
        logits_PC = teacher.logits(source.read(positions_P).inputs_B)
    check_logits(
        logits_PC,
        num_classes=wanted.num_classes,
        teacher=wanted.name,
        unit="(probe rows)",
        sample_ids=ids,
        absent=wanted.absent_classes,
    )
    logits_PC = without_absent(logits_PC, wanted.absent_classes)
    columns = {
        "row": pa.array(positions_P),
        "sample_id": pa.array(ids, pa.string()),
        "logits": pa.array(list(logits_PC), pa.list_(pa.float32())),
    }
    table = pa.table(columns, schema=tables.PROBE)
    return table.replace_schema_metadata({_STATE: teacher.state_digest().encode()})


def _compare(objects: StoreObjects, fresh: pa.Table, options: TeacherOptions) -> None:
    key = keys.probe(options.name)
    stored = tables.from_bytes(objects.read(key), tables.PROBE, key)
    expected, found = ((table.schema.metadata or {}).get(_STATE, b"").decode() for table in (stored, fresh))
    if expected != found:
        raise ManifestMismatch(
            f"teacher {options.name!r}: its parameters are not those its name was pinned with: "
            f"found {found}, expected {expected}. Give it a new name, or go back to the weights "
            "the store was made with."
        )
    tolerance = PROBE_TOLERANCE.get(getattr(options, "dtype", "float32"), PROBE_TOLERANCE["float32"])
    compare_probe(_logits(stored), _logits(fresh), teacher=options.name, tolerance=tolerance)


def _logits(table: pa.Table) -> NDArray[np.float32]:
    return np.array(table["logits"].to_pylist(), dtype=np.float32)
