"""docs/format.md says enough: a reader written from it alone reads what softcask reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.format.independent_reader import IndependentReader
from tests.storage_schemas.codecs.lowrank_codecs import lowrank
from tests.stores import MadeStore, flip, pin_by_hand

from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.codecs import publish_codec
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import reseal, seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.manifest import Pointer, UnitCommit

CLASSES = 150
CODECS: dict[str, Codec] = {
    "dense16": Dense16(),
    "dense8": Dense8(),
    "topk": TopK(settings=Settings(num_classes=CLASSES, head_size=9, temperatures=(0.5, 1.0, 4.0, 20.0))),
    "topk-all": TopK(settings=Settings(num_classes=CLASSES, head_size=CLASSES)),
    "lowrank": lowrank(CLASSES, head=8, rank=19, limits=(2047, 400, 128, 40, 9, 4, 2, 1, 1, 1, 1)),
    "lowrank-one": lowrank(CLASSES, head=1, rank=3, bits=12),
    "lowrank-none": lowrank(CLASSES, head=140, rank=0, bits=2),
}
if importlib.util.find_spec("constriction"):
    CODECS["lowrank-ans"] = lowrank(CLASSES, head=8, rank=19, coder="ans")
BLOSC = {name: codec for name, codec in CODECS.items() if codec.container == "zarr"}


def add(made: MadeStore, name: str, codec: Codec, *, compression: str = "none") -> None:
    """A teacher of this codec."""
    spec = publish_codec(made.objects, name, codec).model_copy(update={"compression": compression})
    made.add_teacher(name, codec=spec)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Every codec over two segments sealed one after the other; rows quarantined, units made anew, drops."""
    uri = str(tmp_path_factory.mktemp("format") / "store")
    made = MadeStore.at(uri, class_names=[f"class {number}" for number in range(CLASSES)])
    made.unit_rows = 12
    made.add_segment(31, quarantined=[0, 5, 30])
    for name, codec in CODECS.items():
        add(made, name, codec)
    for name, codec in BLOSC.items():
        add(made, f"{name}-blosc", codec, compression="blosc")
    add(made, "dropped", CODECS["dense16"])
    made.commit_all()
    seal(made.objects)
    made.add_segment(9, quarantined=[8])
    manifest = made.segments["s0001"][0]
    for name, teacher in made.teachers.items():
        pin_by_hand(made.objects, teacher, [manifest])
        rng = np.random.default_rng([1, *name.encode()])
        made.logits[name, "s0001"] = rng.normal(0, 4, (9, CLASSES)).astype(np.float32)
        made.commit(name, 0, "s0001")
    seal(made.objects)
    make_anew(made, "dense16", 1)
    make_anew(made, "lowrank", 1)
    made.add_segment(4)
    drop(made.objects, plan_drop(made.objects, teachers=["dropped"], segments=["s0002"]))
    drop(made.objects, plan_drop(made.objects, sample_ids=["id-007", "id-035"]))
    return made


def make_anew(made: MadeStore, teacher: str, index: int) -> None:
    """A unit in other bytes, as another device gives them: what stood is superseded."""
    unit = keys.unit_name("s0000", 0, index)
    receipt = keys.commit(teacher, unit)
    for record in UnitCommit.from_bytes(made.objects.read(receipt), receipt).objects:
        made.objects.remove(record.key)
    made.objects.remove(receipt)
    start, stop = made.segments["s0000"][0].unit_range(index)
    made.logits[teacher, "s0000"][start:stop] *= np.float32(0.5)
    made.commit(teacher, index)
    reseal(made.objects, stale={(teacher, unit)})


def teachers() -> list[str]:
    return [*CODECS, *(f"{name}-blosc" for name in BLOSC)]


@pytest.fixture(scope="module")
def independent(made: MadeStore) -> IndependentReader:
    return IndependentReader(made.objects.root)


def softmax(logits_BC: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64) / temperature
    powers_BC: NDArray[np.float64] = np.exp(scaled_BC - scaled_BC.max(axis=1, keepdims=True))
    return powers_BC / powers_BC.sum(axis=1, keepdims=True)


def test_it_finds_the_rows_and_teachers_that_softcask_finds(
    made: MadeStore, independent: IndependentReader
) -> None:
    store = open_store(made.objects.uri)
    assert list(independent.rows) == store.rows.sample_ids.tolist()
    gone = {"id-000", "id-005", "id-030", "id-039", "id-007", "id-035"}
    assert set(independent.rows) == {f"id-{row:03d}" for row in range(40)} - gone
    assert sorted(independent.teachers) == sorted(store.teachers) == sorted(teachers())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("teacher", teachers())
def test_it_reads_the_soft_targets_that_softcask_reads(
    made: MadeStore, independent: IndependentReader, teacher: str, temperature: float
) -> None:
    store = open_store(made.objects.uri)
    ids = list(reversed(store.rows.sample_ids.tolist()))
    logits_BC = store.logits_at(teacher, store.rows.find(ids), temperature)
    found_BC = independent.soft_targets(teacher, ids, temperature)
    np.testing.assert_allclose(found_BC, softmax(logits_BC, temperature), rtol=2e-4, atol=1e-9)
    assert (found_BC > 0).sum() > len(ids)  # no row is all in one class


def test_what_it_reads_of_dense_codecs_is_what_the_teacher_gave(
    made: MadeStore, independent: IndependentReader
) -> None:
    store = open_store(made.objects.uri)
    ids = store.rows.sample_ids.tolist()
    # Half a step: of float16 between 16 and 32 below the maximum; of 255 within a block's range of 28.
    for teacher, half_step in (("dense16", 2**-7), ("dense8-blosc", 28 / 255 / 2)):
        teacher_BC = teacher_logits(made, teacher, ids)
        found_BC = np.log(independent.soft_targets(teacher, ids, 2.0))
        np.testing.assert_allclose(found_BC, np.log(softmax(teacher_BC, 2.0)), atol=half_step / 2 * 1.1)


def teacher_logits(made: MadeStore, teacher: str, sample_ids: list[str]) -> NDArray[np.float32]:
    by_id = {
        name: made.logits[teacher, segment][place]
        for segment, (_, table) in made.segments.items()
        if (teacher, segment) in made.logits
        for place, name in enumerate(table["sample_id"].to_pylist())
    }
    return np.array([by_id[name] for name in sample_ids])


def test_it_needs_no_pointer_that_is_up_to_date(made: MadeStore, independent: IndependentReader) -> None:
    newest = made.objects.read(keys.CATALOG_POINTER)
    made.objects.replace(keys.CATALOG_POINTER, Pointer(generation=2).to_bytes())
    try:
        assert IndependentReader(made.objects.root).rows.keys() == independent.rows.keys()
    finally:
        made.objects.replace(keys.CATALOG_POINTER, newest)


def test_it_refuses_what_was_changed(made: MadeStore, independent: IndependentReader) -> None:
    changed = [
        keys.ROOT,
        keys.segment_manifest("s0001"),
        keys.segment_rows("s0000"),
        f"{keys.logits_group('dense8', 's0000', 0)}/tops/c/0/0",
        keys.logits_part("lowrank", "s0000", 0, 0),
    ]
    for key in changed:
        path, data = Path(made.objects.path(key)), made.objects.read(key)
        path.write_bytes(flip(data, len(data) // 2))
        try:
            with pytest.raises(AssertionError):
                reader = IndependentReader(made.objects.root)
                for teacher in ("dense8", "lowrank"):
                    reader.soft_targets(teacher, list(reader.rows), 1.0)
        finally:
            path.write_bytes(data)


def test_shards_of_several_chunks_are_read(tmp_path: Path) -> None:
    """A row of 2 * 65,536 bytes: eight to a chunk, in units of 24."""
    classes = 65_536
    made = MadeStore.at(str(tmp_path / "wide"), class_names=[f"{number}" for number in range(classes)])
    made.unit_rows = 24
    made.add_segment(42, quarantined=[3, 30])
    add(made, "plain", Dense16())
    add(made, "packed", Dense8(), compression="blosc")
    made.commit_all()
    seal(made.objects)
    store, reader = open_store(made.objects.uri), IndependentReader(made.objects.root)
    ids = ["id-000", "id-007", "id-008", "id-023", "id-024", "id-041"]
    for teacher in ("plain", "packed"):
        expected_BC = softmax(store.logits_at(teacher, store.rows.find(ids), 2.0), 2.0)
        found_BC = reader.soft_targets(teacher, ids, 2.0)
        np.testing.assert_allclose(found_BC, expected_BC, rtol=1e-4, atol=1e-12)


def test_classes_that_are_absent_are_read_as_what_can_never_be(tmp_path: Path) -> None:
    absent, K = (0, 7, 148, 149), CLASSES - 4
    made = MadeStore.at(str(tmp_path / "padded"), class_names=[f"{number}" for number in range(CLASSES)])
    made.unit_rows = 12
    made.add_segment(20, quarantined=[3])
    codecs: dict[str, Codec] = {
        "dense16": Dense16(),
        "dense8": Dense8(),
        "topk": TopK(settings=Settings(num_classes=K, head_size=9)),
        "lowrank": lowrank(K, head=8, rank=19),
    }
    for name, codec in codecs.items():
        teacher = made.teacher_without(name, absent, publish_codec(made.objects, name, codec))
        assert teacher.stored_classes == K
    made.commit_all()
    seal(made.objects)
    store, reader = open_store(made.objects.uri), IndependentReader(made.objects.root)
    ids = store.rows.sample_ids.tolist()
    for name in codecs:
        logits_BC = store.logits_at(name, store.rows.find(ids), 2.0)
        found_BC = reader.soft_targets(name, ids, 2.0)
        np.testing.assert_allclose(found_BC, softmax(logits_BC, 2.0), rtol=2e-4, atol=1e-9)
        assert (found_BC[:, absent] == 0).all() and np.isneginf(logits_BC[:, absent]).all()
        assert (np.delete(found_BC, absent, axis=1) > 0).all()
