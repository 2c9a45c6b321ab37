"""Entries made from entries, against float64 formulas; killed anywhere, they go on to the same store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.stores import Killed, MadeStore, all_objects, mortal, sealed_store

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.derive import combine, log_mean, mean_of_logits, reencode
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.receipts import committed_units
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import (
    ConfigError,
    ExchangeError,
    IncompleteStore,
    ManifestMismatch,
    StoreError,
    UnknownKind,
)
from softcask.storage_schemas.fingerprint import digest

DENSE8, DENSE16 = CodecRequest(name="dense8"), CodecRequest(name="dense16")


@pytest.fixture
def made() -> Iterator[MadeStore]:
    """In memory: what is tested here writes much and waits for no disk."""
    yield sealed_store("memory://cask")
    fsspec.filesystem("memory").store.clear()


def log_softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def test_the_new_entry_has_the_old_one_s_logits_in_another_codec(made: MadeStore) -> None:
    filled = reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    assert (filled.units, filled.new_units, filled.rows, filled.codec) == (3, 3, 19, "dense8")
    store = open_store(made.objects.uri)
    assert store.teacher("alpha8").codec.name == "dense8"
    old, new = (log_softmax(store.logits(name, np.arange(19))) for name in ("alpha", "alpha8"))
    assert (np.exp(old) * (old - new)).sum(axis=1).max() < 1e-4
    raw = store.logits("alpha8", np.arange(19))
    np.testing.assert_allclose(raw, made.readable_logits("alpha"), atol=0.1)


def test_its_fingerprint_says_what_it_was_made_from(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    manifest = open_store(made.objects.uri).teacher("alpha8")
    assert (manifest.kind, manifest.role) == ("derived", "member")
    assert manifest.fingerprint["operation"] == "reencode"
    (source,) = manifest.fingerprint["derived_from"]
    alpha = made.teachers["alpha"]
    assert (source["teacher"], source["fingerprint"]) == ("alpha", digest(alpha.fingerprint))
    assert source["codec"]["name"] == "dense16"


def test_it_stands_on_its_own_once_its_source_is_dropped(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    before = open_store(made.objects.uri).logits("alpha8", np.arange(19))
    drop(made.objects, plan_drop(made.objects, teachers=["alpha"]))
    store = open_store(made.objects.uri)
    assert sorted(store.teachers) == ["alpha8", "beta"]
    np.testing.assert_array_equal(store.logits("alpha8", np.arange(19)), before)
    assert verify(made.objects.uri).problems == ()


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_the_arithmetic_mean_is_that_of_probabilities_at_t_1(
    weights: list[float] | None, made: MadeStore
) -> None:
    filled = combine(
        made.objects.uri,
        teachers=["alpha", "beta"],
        rule="mean",
        into="both",
        request=DENSE16,
        weights=weights,
    )
    assert filled.new_units == 3
    parts = [np.exp(log_softmax(made.readable_logits(name))) for name in ("alpha", "beta")]
    first = 0.5 if weights is None else 0.25
    expected = first * parts[0] + (1 - first) * parts[1]
    targets = SoftTargets(open_store(made.objects.uri), ["both"])
    np.testing.assert_allclose(targets.probabilities(np.arange(19), 1.0), expected, atol=1e-3)
    tempered = np.exp(log_softmax(np.log(expected), 4.0))
    np.testing.assert_allclose(targets.probabilities(np.arange(19), 4.0), tempered, atol=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_the_geometric_mean_is_that_of_the_members_at_any_temperature(
    temperature: float, made: MadeStore
) -> None:
    arguments: dict[str, Any] = {"teachers": ["beta", "alpha"], "weights": [2.0, 1.0], "into": "both"}
    combine(made.objects.uri, rule="geometric", request=DENSE16, **arguments)
    parts = {name: log_softmax(made.readable_logits(name), temperature) for name in ("alpha", "beta")}
    expected = np.exp(log_softmax((2 * parts["beta"] + parts["alpha"]) / 3))
    targets = SoftTargets(open_store(made.objects.uri), ["both"])
    np.testing.assert_allclose(targets.probabilities(np.arange(19), temperature), expected, atol=2e-3)


def test_means_of_extreme_logits_stay_finite_and_right() -> None:
    logits = np.array([[[0, -2000, 500]], [[-3e4, 0, 10]]], dtype=np.float32)
    weights = np.array([0.25, 0.75])
    log_parts = [log_softmax(part) for part in logits]
    found = log_mean(logits, weights)
    assert np.isfinite(found).all()
    expected = np.logaddexp(np.log(0.25) + log_parts[0], np.log(0.75) + log_parts[1])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(mean_of_logits(logits, weights), [[-22500, -500, 132.5]], rtol=1e-6)


def test_a_store_with_derived_entries_is_sound(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    reencode(made.objects.uri, teacher="alpha", into="top", request=CodecRequest(name="topk", k=2))
    combine(made.objects.uri, teachers=["alpha", "beta"], rule="mean", into="both", request=DENSE16)
    report = verify(made.objects.uri)
    assert (report.problems, report.orphans) == ((), 0)
    stats = open_store(made.objects.uri).stats("top").to_pydict()
    assert stats["sample_id"] == open_store(made.objects.uri).rows.sample_ids.tolist()


def test_a_codec_is_found_for_a_budget_by_a_trial_on_stored_rows(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "cask"), class_names=[f"class {c}" for c in range(40)])
    made.unit_rows = 64
    made.add_segment(200)
    made.add_teacher("alpha")
    made.commit_all()
    request = CodecRequest(name="auto", max_bytes=60)
    filled = reencode(made.objects.uri, teacher="alpha", into="small", request=request)
    manifest = open_store(made.objects.uri).teacher("small")
    assert filled.codec == manifest.codec.name
    codec_bytes = sum(column.row_bytes for column in open_store(made.objects.uri).codec("small").columns(40))
    assert codec_bytes <= 60 < 84  # dense16 takes 84
    assert "60 B a row" in manifest.recorded["codec"]["reason"]
    assert [each.temperature for each in manifest.expected_fidelity]
    with pytest.raises(ConfigError, match="no codec keeps the logits of teacher 'none' within 16 B"):
        request = CodecRequest(name="auto", max_bytes=16, max_kl=1e-9)
        reencode(made.objects.uri, teacher="alpha", into="none", request=request)
    assert "none" not in open_store(made.objects.uri, allow_partial=True).teachers


def test_the_same_call_does_nothing_again_and_tries_no_codec(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = CodecRequest(name="topk", max_kl=1.0, rows=64)
    reencode(made.objects.uri, teacher="alpha", into="top", request=request)
    before = all_objects(made.objects)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr("softcask.pipeline.derive.run_trials", never)
    filled = reencode(made.objects.uri, teacher="alpha", into="top", request=request)
    assert filled.new_units == 0
    assert all_objects(made.objects) == before


def test_killed_at_any_write_it_goes_on_to_the_same_store(made: MadeStore) -> None:
    def derive(store: MadeStore, objects: Any = None) -> None:
        combine(
            store.objects.uri,
            teachers=["alpha", "beta"],
            rule="mean",
            into="both",
            request=DENSE16,
            objects=objects,
        )

    derive(made)
    expected = {
        key: data for key, data in all_objects(made.objects).items() if not key.startswith("catalog/")
    }
    writes = 0
    for step in range(1, 100):
        killed = sealed_store(f"memory://killed-{step}")
        dying = mortal(killed.objects, step, after=bool(step % 2))
        try:
            derive(killed, dying)
        except Killed:
            derive(killed)
            found = all_objects(killed.objects)
            assert {key: found[key] for key in expected} == expected
            assert verify(killed.objects.uri).problems == ()
            continue
        writes = step
        break
    assert writes > 10  # metadata, probe, manifest, three units, a generation


def test_rows_that_were_dropped_do_not_come_back(made: MadeStore) -> None:
    drop(made.objects, plan_drop(made.objects, sample_ids=["id-003"]))
    reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    store = open_store(made.objects.uri)
    assert len(store.rows) == 18
    kept = np.delete(made.readable_logits("alpha"), 3, axis=0)
    np.testing.assert_allclose(store.logits("alpha8", np.arange(18)), kept, atol=0.1)
    key = keys.stats_part("alpha8", "s0000", 0, 0)
    assert verify(made.objects.uri).problems == ()
    table = pq.read_table(pa.BufferReader(made.objects.read(key))).to_pydict()
    dropped = table["sample_id"].index("id-003")
    np.testing.assert_allclose(table["entropy"][dropped], np.log(3), rtol=1e-6)  # nothing of it is copied


def test_several_segments_are_all_derived(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "cask"))
    made.add_segment(20, quarantined=[5])
    made.add_segment(9, quarantined=[0, 1])
    made.add_teacher("alpha")
    made.commit_all()
    filled = reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    assert (filled.units, filled.rows) == (5, 26)
    found = open_store(made.objects.uri).logits("alpha8", np.arange(26))
    np.testing.assert_allclose(found, made.readable_logits("alpha"), atol=0.1)


def test_of_a_store_that_grew_only_the_new_units_are_derived(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    made.add_segment(9)
    for name in ("alpha", "beta"):
        made.add_teacher(name)
    made.commit_all()
    filled = reencode(made.objects.uri, teacher="alpha", into="alpha8", request=DENSE8)
    assert (filled.units, filled.new_units, filled.rows) == (5, 2, 9)
    found = open_store(made.objects.uri).logits("alpha8", np.arange(28))
    np.testing.assert_allclose(found, made.readable_logits("alpha"), atol=0.1)
    assert verify(made.objects.uri).problems == ()


def test_a_name_that_stands_for_something_else_is_refused_field_by_field(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="new", request=DENSE8)
    with pytest.raises(ManifestMismatch, match=r"derived_from"):
        reencode(made.objects.uri, teacher="beta", into="new", request=DENSE8)
    with pytest.raises(ManifestMismatch, match=r"codec.name: found \"dense16\", expected \"dense8\""):
        reencode(made.objects.uri, teacher="alpha", into="new", request=DENSE16)
    with pytest.raises(ManifestMismatch, match="is pinned to something else"):
        combine(made.objects.uri, teachers=["alpha", "beta"], rule="mean", into="new", request=DENSE8)


def test_a_dropped_name_is_refused(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="new", request=DENSE8)
    drop(made.objects, plan_drop(made.objects, teachers=["new"]))
    with pytest.raises(StoreError, match="teacher 'new' was dropped"):
        reencode(made.objects.uri, teacher="alpha", into="new", request=DENSE8)


def test_a_source_that_has_lost_much_is_refused_unless_that_is_allowed(made: MadeStore) -> None:
    del made  # its end clears the memory
    wide = MadeStore.at("memory://wide", class_names=[f"class {c}" for c in range(64)])
    wide.unit_rows = 64
    wide.add_segment(250)
    wide.add_teacher("alpha")
    wide.commit_all()
    uri, rows = wide.objects.uri, np.arange(250)
    request = CodecRequest(name="lowrank", max_bytes=64, rows=250)
    assert reencode(uri, teacher="alpha", into="low", request=request).codec == "lowrank"
    with pytest.raises(ExchangeError, match="kept with lowrank, and what it lost would be lost again"):
        reencode(uri, teacher="low", into="new", request=DENSE16)
    reencode(uri, teacher="low", into="new", request=DENSE16, allow_lossy=True)
    store = open_store(uri)
    for temperature in (1.0, 8.0):
        low, new = (SoftTargets(store, [name]).probabilities(rows, temperature) for name in ("low", "new"))
        np.testing.assert_allclose(new, low, atol=1e-3)
        exact = np.exp(log_softmax(wide.readable_logits("alpha"), temperature))
        assert (exact * (np.log(exact) - np.log(new))).sum(axis=1).mean() < 0.2
    assert verify(uri).problems == ()


def test_a_source_that_holds_at_one_temperature_only_is_refused_in_any_case(made: MadeStore) -> None:
    reencode(made.objects.uri, teacher="alpha", into="top", request=CodecRequest(name="topk", k=2))
    with pytest.raises(ExchangeError, match="kept with topk, which holds at one temperature at a time"):
        reencode(made.objects.uri, teacher="top", into="new", request=DENSE16, allow_lossy=True)


def test_a_source_that_lacks_units_is_refused_before_anything_is_written(made: MadeStore) -> None:
    made.objects.remove(keys.commit("beta", "s0000-v0000-00000001"))
    made.objects.fs.rm(f"{made.objects.root}/catalog", recursive=True)
    with pytest.raises(IncompleteStore, match="teacher 'beta' .* lacks 1 units"):
        combine(made.objects.uri, teachers=["alpha", "beta"], rule="mean", into="both", request=DENSE16)
    assert made.objects.parts("teachers") == ["alpha", "beta"]
    assert committed_units(made.objects, "both") == set()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teachers": ["alpha", "alpha"]}, ExchangeError, "named twice"),
        ({"teachers": ["alpha", "both"]}, ExchangeError, "'both' is the name of a teacher it would be made"),
        ({"teachers": ["alpha", "gamma"]}, StoreError, "has no teacher 'gamma'"),
        ({"rule": "median"}, UnknownKind, "unknown rule 'median'; known rules: geometric, mean"),
        ({"weights": [1.0]}, ConfigError, "1 weights for 2 teachers"),
        ({"weights": [1.0, -1.0]}, ConfigError, "must be finite and above 0"),
        ({"into": "../both"}, StoreError, "cannot name a part of a store"),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, made: MadeStore
) -> None:
    arguments: dict[str, Any] = {"teachers": ["alpha", "beta"], "rule": "mean", "into": "both", **changes}
    with pytest.raises(error, match=message):
        combine(made.objects.uri, request=DENSE16, **arguments)
    assert made.objects.parts("teachers") == ["alpha", "beta"]
