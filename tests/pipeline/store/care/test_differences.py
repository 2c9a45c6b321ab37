from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.scaled_codec import add_scaled_teacher
from tests.stores import MadeStore, sealed_store

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.differences import Difference, diff_stores, diff_teachers
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas.errors import StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return sealed_store(str(tmp_path_factory.mktemp("diff") / "a"))


@pytest.fixture
def store(made: MadeStore) -> Store:
    return open_store(made.objects.uri)


def copied(made: MadeStore, folder: Path) -> MadeStore:
    """The same store elsewhere, to be changed."""
    shutil.copytree(made.objects.root, folder / "b")
    own = MadeStore(StoreObjects.at(str(folder / "b")), classes=made.classes, unit_rows=made.unit_rows)
    own.segments, own.teachers, own.logits = dict(made.segments), dict(made.teachers), dict(made.logits)
    return own


def kl(a: np.ndarray, b: np.ndarray, temperature: float) -> np.ndarray:
    """sum p (log p - log q) of each row, in float64."""
    p, q = (np.exp(values.astype(np.float64) / temperature) for values in (a, b))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return (p * np.log(p / q)).sum(axis=1)


def test_a_store_and_its_copy_are_equal(made: MadeStore, store: Store, tmp_path: Path) -> None:
    found = diff_stores(store, open_store(copied(made, tmp_path).objects.uri))
    assert found.equal
    assert (found.rows.common, found.rows.only_a, found.rows.only_b) == (19, 0, 0)
    for each in found.teachers.values():
        assert (each.units, each.fields) == (3, ())
        assert each.divergence is not None
        assert (each.divergence.rows, each.divergence.kl_max, each.divergence.same_top) == (19, 0, 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_what_two_teachers_say_is_compared_row_by_row(store: Store, temperature: float) -> None:
    found = diff_teachers(store, "alpha", "beta", temperature=temperature)
    alpha, beta = (store.logits(name, np.arange(19)) for name in ("alpha", "beta"))
    expected = kl(alpha, beta, temperature)
    assert found.divergence is not None and not found.equal
    assert found.divergence.kl_mean == pytest.approx(expected.mean(), rel=1e-6)
    assert found.divergence.kl_max == pytest.approx(expected.max(), rel=1e-6)
    assert found.divergence.same_top == np.mean(alpha.argmax(1) == beta.argmax(1))
    assert [each.name for each in found.fields] == ["fingerprint.weights"]
    assert (found.units, found.other_bytes) == (0, 3)


def test_a_sample_is_spread_over_all_rows(store: Store) -> None:
    found = diff_teachers(store, "alpha", "beta", sample=3).divergence
    rows = np.array([0, 9, 18])
    expected = kl(store.logits("alpha", rows), store.logits("beta", rows), 1.0)
    assert found is not None and found.rows == 3
    assert found.kl_mean == pytest.approx(expected.mean(), rel=1e-6)
    assert diff_teachers(store, "alpha", "beta", sample=0).divergence is None


def test_teachers_units_and_rows_of_one_store_alone_are_named(
    made: MadeStore, store: Store, tmp_path: Path
) -> None:
    own = copied(made, tmp_path)
    own.add_segment(10)
    own.add_teacher("gamma")
    own.commit_all("gamma")
    seal(own.objects)
    drop(own.objects, plan_drop(own.objects, teachers=["beta"], sample_ids=["id-003"]))
    found = diff_stores(store, open_store(own.objects.uri))
    assert not found.equal
    assert (found.teachers_a, found.teachers_b) == (("beta",), ("gamma",))
    assert (found.rows.common, found.rows.only_a, found.rows.only_b) == (18, 1, 10)
    assert [(each.name, each.a) for each in found.segments] == [("s0001", None)]
    assert found.teachers["alpha"].equal
    back = diff_stores(open_store(own.objects.uri), store)
    assert (back.rows.only_a, back.rows.only_b) == (10, 1)


def test_another_pass_shows_in_units_and_in_what_they_say(
    made: MadeStore, store: Store, tmp_path: Path
) -> None:
    own = sealed_store(str(tmp_path / "b"), teachers=("alpha",))
    other = MadeStore.at(str(tmp_path / "c"))
    other.add_segment(20, quarantined=[5])
    other.add_teacher("alpha")
    other.logits["alpha", "s0000"] = own.logits["alpha", "s0000"] + np.float32([0.5, 0, 0])
    other.commit_all()
    seal(other.objects)
    found = diff_stores(open_store(own.objects.uri), open_store(other.objects.uri)).teachers["alpha"]
    assert (found.units, found.other_bytes, found.fields) == (0, 3, ())
    expected = kl(own.readable_logits("alpha"), other.readable_logits("alpha"), 1.0)
    assert found.divergence is not None
    assert found.divergence.kl_mean == pytest.approx(expected.mean(), rel=0.02)


def test_rows_that_one_of_them_has_not_labelled_are_not_compared(made: MadeStore, tmp_path: Path) -> None:
    own = copied(made, tmp_path)
    own.add_teacher("gamma")
    own.commit("gamma", 1)
    store = open_store(own.objects.uri, allow_partial=True)
    found = diff_teachers(store, "alpha", "gamma")
    assert found.divergence is not None
    assert (found.divergence.rows, found.only_a, found.only_b, found.other_bytes) == (8, 2, 0, 1)


def test_other_classes_labels_and_contents_are_told(store: Store, tmp_path: Path) -> None:
    other = MadeStore.at(str(tmp_path / "b"), class_names=("class 0", "class 2", "class 1"))
    other.add_segment(20)
    other.add_teacher("alpha")
    other.commit_all()
    seal(other.objects)
    found = diff_stores(store, open_store(other.objects.uri))
    assert found.classes == (
        Difference(name="1", a="class 1", b="class 2"),
        Difference(name="2", a="class 2", b="class 1"),
    )
    assert found.teachers["alpha"].divergence is None, "its columns mean other classes"
    assert ("s0000.quarantined", 1, 0) in [(each.name, each.a, each.b) for each in found.segments]
    assert (found.rows.only_b, found.rows.other_content, found.rows.other_label) == (1, 0, 0)


def test_codecs_are_compared_with_their_arrays_and_by_what_they_decode_to(
    made: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(made, tmp_path)
    add_scaled_teacher(own, "gamma", monkeypatch)
    own.logits["gamma", "s0000"] = own.logits["alpha", "s0000"]
    own.commit_all("gamma")
    seal(own.objects)
    found = diff_teachers(open_store(own.objects.uri), "alpha", "gamma")
    names = {each.name for each in found.fields}
    assert {"codec.name", "codec.container", "codec.arrays.steps"} <= names
    assert found.divergence is not None
    assert 0 < found.divergence.kl_max < 1e-4
    assert found.divergence.same_top == 1


def test_a_temperature_beyond_a_codecs_claim_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="good for 0.5 to 20"):
        diff_teachers(store, "alpha", "beta", temperature=50)
