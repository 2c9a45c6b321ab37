"""Others' logits as a teacher: in a store of their own, beside teachers that were run, killed anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.stores import Killed, MadeStore, all_objects, mortal, sealed_store

from softcask.pipeline.exchange.export import Shape, export
from softcask.pipeline.exchange.importers.base import Source
from softcask.pipeline.exchange.importing import import_logits
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.student import loader
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import (
    ExchangeError,
    ManifestMismatch,
    MisalignedRows,
    StoreError,
    UnknownKind,
)
from softcask.storage_schemas.manifest import SegmentManifest

CLASSES, TOP, ROWS = 8, 3, 21


def probabilities(rows: int = ROWS, seed: int = 0, classes: int = CLASSES) -> NDArray[np.float64]:
    logits = 2 * np.random.default_rng(seed).normal(size=(rows, classes))
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def write(
    path: Path, ids: list[str] | None = None, *, seed: int = 0, classes: int = CLASSES, top: int = TOP
) -> Source:
    """The largest of `probabilities` as plain Parquet, five rows a row group."""
    ids = ids or [f"id-{row:03d}" for row in range(ROWS)]
    whole = probabilities(len(ids), seed, classes)
    known = np.argsort(-whole, axis=1)[:, :top]
    values = np.log(np.take_along_axis(whole, known, axis=1))
    table = pa.table({"sample_id": ids, "indices": known.tolist(), "logprobs": values.tolist()})
    pq.write_table(table, path, row_group_size=5)
    return Source(path=path, classes=classes)


def evened(whole: NDArray[np.float64], top: int = TOP) -> NDArray[np.float64]:
    """All but the largest spread evenly."""
    order = np.argsort(-whole, axis=1)
    known = np.take_along_axis(whole, order[:, :top], axis=1)
    even = np.repeat((1 - known.sum(axis=1, keepdims=True)) / (whole.shape[1] - top), whole.shape[1], axis=1)
    np.put_along_axis(even, order[:, :top], known, axis=1)
    return even


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "cask")


def test_a_store_is_made_of_top_k_that_is_good_for_t_1_and_says_so(tmp_path: Path, uri: str) -> None:
    filled = import_logits("parquet", write(tmp_path / "a.parquet"), uri, name="other", unit_rows=8)
    assert (filled.units, filled.rows, filled.codec) == (3, ROWS, "topk")
    store = open_store(uri)
    assert store.class_names == tuple(map(str, range(CLASSES)))
    assert store.rows.sample_ids.tolist() == [f"id-{row:03d}" for row in range(ROWS)]
    targets = SoftTargets(store)
    assert targets.teachers == ("other",)
    found = targets.probabilities(np.arange(ROWS), 1.0)
    np.testing.assert_allclose(found, evened(probabilities()), atol=2e-3)
    with pytest.raises(StoreError, match="good for 1 to 1"):
        targets.probabilities(np.arange(ROWS), 2.0)
    with pytest.raises(StoreError, match="codec topk does not keep them"):
        targets.logits(np.arange(ROWS))
    report = verify(uri)
    assert (report.problems, report.orphans) == ((), 0)


def test_where_it_came_from_and_what_it_lacks_is_written_down(tmp_path: Path, uri: str) -> None:
    import hashlib

    import_logits("parquet", write(tmp_path / "a.parquet"), uri, name="other")
    manifest = open_store(uri).teacher("other")
    digest = hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()
    assert manifest.kind == "imported"
    assert manifest.fingerprint["format"] == "parquet"
    assert manifest.fingerprint["files"] == {"a.parquet": f"sha256:{digest}"}
    assert "known by its sum alone" in manifest.recorded["limits"][0]


def test_logits_of_all_classes_are_good_at_any_temperature(tmp_path: Path, uri: str) -> None:
    logits = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    np.save(tmp_path / "big.npy", logits)
    np.save(tmp_path / "labels.npy", np.arange(ROWS) % 5)
    source = Source(path=tmp_path / "big.npy", labels=tmp_path / "labels.npy")
    import_logits("npy", source, uri, name="big", class_names=list("abcde"), codec="dense8")
    store = open_store(uri)
    assert store.class_names == tuple("abcde")
    np.testing.assert_array_equal(store.rows.labels, np.arange(ROWS) % 5)
    np.testing.assert_allclose(store.logits("big", np.arange(ROWS)), logits, atol=0.02)
    assert store.codec("big").temperatures == (0.5, 20.0)


def test_in_a_store_that_has_rows_they_join_by_id_in_any_order(tmp_path: Path, uri: str) -> None:
    made = sealed_store(uri)
    ids = [f"id-{row:03d}" for row in range(20) if row != 5]  # row 5 is quarantined
    shuffled = np.random.default_rng(3).permutation(19)
    source = write(tmp_path / "a.parquet", [ids[place] for place in shuffled], classes=3, top=1)
    filled = import_logits("parquet", replace(source, classes=None), uri, name="other")
    assert (filled.units, filled.rows) == (3, 19)
    store = open_store(uri)
    assert sorted(store.teachers) == ["alpha", "beta", "other"]
    found = SoftTargets(store, ["other"]).probabilities(np.arange(19), 1.0)
    expected = np.empty((19, 3))
    expected[shuffled] = evened(probabilities(19, classes=3), top=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(
        store.logits("alpha", np.arange(19)), open_store(made.objects.uri).logits("alpha", np.arange(19))
    )
    assert verify(uri).problems == ()


def test_rows_that_either_side_lacks_are_refused(tmp_path: Path, uri: str) -> None:
    sealed_store(uri)
    ids = [f"id-{row:03d}" for row in range(20) if row != 5]
    few = write(tmp_path / "few.parquet", ids[:-2], classes=3, top=1)
    with pytest.raises(MisalignedRows, match=r"no logits of 2 of 19 rows of .* \(id-018, id-019\)"):
        import_logits("parquet", few, uri, name="other")
    many = write(tmp_path / "many.parquet", [*ids, "x", "y"], classes=3, top=1)
    with pytest.raises(MisalignedRows, match="2 rows that .* does not have.*--ignore-extra"):
        import_logits("parquet", many, uri, name="other")
    assert StoreObjects.at(uri).parts("teachers") == ["alpha", "beta"]
    assert import_logits("parquet", many, uri, name="other", ignore_extra=True).rows == 19


def test_labels_that_differ_tell_that_ids_name_other_rows(tmp_path: Path, uri: str) -> None:
    made = sealed_store(uri)
    labels = made.segments["s0000"][1]["label"].fill_null(-1).to_numpy().copy()
    np.save(tmp_path / "z.npy", np.zeros((20, 3), np.float32))
    np.save(tmp_path / "ids.npy", np.array([f"id-{row:03d}" for row in range(20)]))
    source = Source(path=tmp_path / "z.npy", ids=tmp_path / "ids.npy", labels=tmp_path / "labels.npy")
    labels[4] += 1
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(MisalignedRows, match="for 1 rows, the first 'id-004': found 1, expected 0"):
        import_logits("npy", source, uri, name="z", ignore_extra=True)  # row 5 is quarantined there
    labels[4] -= 1
    np.save(tmp_path / "labels.npy", labels)
    assert import_logits("npy", source, uri, name="z", ignore_extra=True).rows == 19


def test_a_codec_that_needs_more_than_a_name_is_left_to_reencode(tmp_path: Path, uri: str) -> None:
    np.save(tmp_path / "z.npy", np.zeros((4, 3), np.float32))
    for codec, error in {"lowrank": ExchangeError, "topk": ExchangeError, "zip": UnknownKind}.items():
        with pytest.raises(error, match="softcask reencode|unknown codec 'zip'"):
            import_logits("npy", Source(path=tmp_path / "z.npy"), uri, name="z", codec=codec)
    assert not Path(uri).exists()


def test_rows_that_were_dropped_need_no_logits(tmp_path: Path, uri: str) -> None:
    made = sealed_store(uri)
    drop(made.objects, plan_drop(made.objects, sample_ids=["id-000"]))
    ids = [f"id-{row:03d}" for row in range(1, 20) if row != 5]
    import_logits("parquet", write(tmp_path / "a.parquet", ids, classes=3, top=1), uri, name="other")
    found = SoftTargets(open_store(uri), ["other"]).probabilities(np.arange(18), 1.0)
    np.testing.assert_allclose(found, evened(probabilities(18, classes=3), top=1), atol=2e-3)
    assert verify(uri).problems == ()


def test_killed_at_any_write_it_goes_on_to_the_same_store(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet")

    def run(uri: str, objects: StoreObjects | None = None) -> None:
        import_logits("parquet", source, uri, name="other", unit_rows=8, objects=objects)

    run("memory://whole")
    whole = all_objects(StoreObjects.at("memory://whole"))
    expected = {key: data for key, data in whole.items() if not key.startswith(("catalog/", "runs/"))}
    for step in range(1, 100):
        uri = f"memory://killed-{step}"
        try:
            run(uri, mortal(StoreObjects.at(uri), step, after=bool(step % 2)))
        except Killed:
            run(uri)
            found = all_objects(StoreObjects.at(uri))
            assert {key: found.get(key) for key in expected} == expected
            assert verify(uri).problems == ()
            continue
        break
    fsspec.filesystem("memory").store.clear()
    assert step > 15  # root, rows, segment, metadata, probe, manifest, three units, a generation


def test_the_same_import_does_nothing_again(tmp_path: Path, uri: str) -> None:
    source = write(tmp_path / "a.parquet")
    import_logits("parquet", source, uri, name="other")
    before = all_objects(StoreObjects.at(uri))
    filled = import_logits("parquet", source, uri, name="other")
    assert (filled.new_units, filled.units) == (0, 1)
    assert all_objects(StoreObjects.at(uri)) == before


def test_other_files_under_the_same_name_are_refused_field_by_field(tmp_path: Path, uri: str) -> None:
    import_logits("parquet", write(tmp_path / "a.parquet"), uri, name="other")
    with pytest.raises(ManifestMismatch, match=r"fingerprint\.files\.a\.parquet: found .*sha256"):
        import_logits("parquet", write(tmp_path / "a.parquet", seed=1), uri, name="other")


def test_a_bad_row_is_named_and_what_stands_before_it_is_gone_on_from(tmp_path: Path, uri: str) -> None:
    source = write(tmp_path / "a.parquet")
    good = source.path.read_bytes()
    table = pq.read_table(source.path)
    values = table["logprobs"].to_pylist()
    values[17] = [0.5, -1.0, -2.0]
    changed = table.set_column(2, "logprobs", pa.array(values))
    pq.write_table(changed, source.path)
    with pytest.raises(ExchangeError, match=r"a\.parquet: row 17 \(id-017\) holds 0\.5"):
        import_logits("parquet", source, uri, name="other", unit_rows=8)
    assert len(StoreObjects.at(uri).names(keys.commits_folder("other"))) == 2
    source.path.write_bytes(good)
    with pytest.raises(ManifestMismatch, match=r"a\.parquet"):  # other content, so another teacher
        import_logits("parquet", source, uri, name="other", unit_rows=8)
    assert import_logits("parquet", source, uri, name="mended").rows == ROWS


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "onnx"}, UnknownKind, "unknown import kind 'onnx'; known kinds: distillkit, npy, parquet"),
        ({"name": "a/b"}, StoreError, "cannot name a part of a store"),
        ({"class_names": list("abcdefgh"), "classes": None}, None, ""),
        ({"class_names": None, "classes": None}, ExchangeError, "give --classes or --class-names"),
        ({"ids": ["a", "b", "a"]}, ExchangeError, "1 sample ids repeat"),
    ],
)
def test_what_makes_no_sense_leaves_no_store_behind(
    changes: dict[str, Any], error: type[Exception] | None, message: str, tmp_path: Path, uri: str
) -> None:
    source = replace(
        write(tmp_path / "a.parquet", changes.get("ids")), classes=changes.get("classes", CLASSES)
    )
    kind, name = changes.get("kind", "parquet"), changes.get("name", "other")
    names = changes.get("class_names")
    if error is None:
        assert import_logits(kind, source, uri, name=name, class_names=names).rows == ROWS
        return
    with pytest.raises(error, match=message):
        import_logits(kind, source, uri, name=name, class_names=names)
    assert not Path(uri).exists()


def test_a_store_about_other_classes_is_refused(tmp_path: Path, uri: str) -> None:
    sealed_store(uri)
    np.save(tmp_path / "big.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(ExchangeError, match="5 classes a row, expected 3"):
        import_logits("npy", Source(path=tmp_path / "big.npy"), uri, name="big")
    source = write(tmp_path / "a.parquet", classes=3, top=1)
    with pytest.raises(ManifestMismatch, match="about other classes"):
        import_logits("parquet", source, uri, name="other", class_names=["x", "y", "z"])


def test_what_was_exported_as_top_k_comes_back(tmp_path: Path, uri: str) -> None:
    made = sealed_store(str(tmp_path / "first"))
    targets = SoftTargets(open_store(made.objects.uri), ["alpha"])
    export(targets, str(tmp_path / "out"), shape=Shape(top_k=2), file_bytes=1)
    source = Source(path=tmp_path / "out", classes=3)
    import_logits("parquet", source, uri, name="again")
    store = open_store(uri)
    np.testing.assert_array_equal(store.rows.labels, targets.store.rows.labels)
    found = SoftTargets(store).probabilities(np.arange(19), 1.0)
    np.testing.assert_allclose(found, targets.probabilities(np.arange(19), 1.0), atol=2e-3)


def test_a_segment_of_rows_that_nobody_saw_says_so_and_takes_no_other_teacher(
    tmp_path: Path, uri: str
) -> None:
    import_logits("parquet", write(tmp_path / "a.parquet"), uri, name="other")
    objects = StoreObjects.at(uri)
    segment = SegmentManifest.from_bytes(objects.read(keys.segment_manifest("s0000")), "")
    assert (segment.input_shape, segment.input_dtype, segment.quarantined) == ((), "unknown", 0)
    rows = pq.read_table(Path(uri, keys.segment_rows("s0000")))
    assert rows["content_hash"].null_count == ROWS


def test_a_student_must_allow_rows_whose_content_nobody_knows(tmp_path: Path, uri: str) -> None:
    ids = [f"row-{row:08d}" for row in range(ROWS)]
    import_logits("parquet", write(tmp_path / "a.parquet", ids), uri, name="other")
    inputs = np.random.default_rng(5).normal(size=(ROWS, 4)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    rows = ArraysOptions(inputs=str(tmp_path / "inputs.npy"), id_prefix="row").open()
    targets = SoftTargets(open_store(uri))
    with pytest.raises(MisalignedRows, match=r'content of 21 of 21 rows .*set match = "id"'):
        loader(targets, inputs=rows)
    found = loader(targets, inputs=rows, match="id", batch_size=8)
    expected = evened(probabilities())
    seen = 0
    for batch in found:
        np.testing.assert_array_equal(batch.inputs, inputs[batch.positions_B])
        assert batch.targets is not None
        np.testing.assert_allclose(batch.targets, expected[batch.positions_B], atol=2e-3)
        seen += len(batch.positions_B)
    assert seen == ROWS


def test_with_ids_alone_allowed_known_content_is_still_compared(
    make_known: MadeStore, tmp_path: Path
) -> None:
    targets = SoftTargets(open_store(make_known.objects.uri), ["alpha"])
    np.save(tmp_path / "inputs.npy", np.zeros((19, 2), np.float32))
    np.save(tmp_path / "ids.npy", np.array([f"id-{row:03d}" for row in range(20) if row != 5]))
    rows = ArraysOptions(inputs=str(tmp_path / "inputs.npy"), ids=str(tmp_path / "ids.npy")).open()
    with pytest.raises(MisalignedRows, match="have other content here than the teachers saw"):
        list(loader(targets, inputs=rows, match="id"))


@pytest.fixture
def make_known(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "known"))
