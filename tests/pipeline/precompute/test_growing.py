"""A store that grows: rows behind those it has make a new segment, and what stands stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests import toy_models
from tests.worlds import identities_of, run_config, teacher, write_rows

from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas.errors import ManifestMismatch, TransferSetError


def keep_first(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave so many rows, and return all that there were."""
    inputs, labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
    put(folder, inputs[:rows], labels[:rows])
    return inputs, labels


def put(folder: Path, inputs: np.ndarray, labels: np.ndarray) -> None:
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", labels)


def bare_logits(inputs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return toy_models.net(0)(torch.from_numpy(inputs) * 0.5).numpy()


def test_rows_behind_those_of_a_store_are_labelled_alone_and_read_with_them(tmp_path: Path) -> None:
    write_rows(tmp_path)
    inputs, labels = keep_first(tmp_path, 100)
    config = run_config(tmp_path, teacher("a"))
    precompute(config)
    before = identities_of(tmp_path / "cask" / "teachers" / "a" / "commits")
    put(tmp_path, inputs, labels)
    planned = plan(config).teachers["a"]
    assert (planned.units, planned.committed, planned.rows) == (4 + 5, 4, 130)  # units of 32 rows
    summary = precompute(config)
    assert (summary.rows, summary.teachers["a"].new_rows, summary.tasks) == (230, 130, 5)
    after = identities_of(tmp_path / "cask" / "teachers" / "a" / "commits")
    assert {name: after[name] for name in before} == before and len(after) == 9
    store = open_store(str(tmp_path / "cask"))
    assert [segment.rows for segment in store.segments] == [100, 130]
    assert store.rows.sample_ids.tolist() == [f"inputs-{row:08d}" for row in range(230)]
    np.testing.assert_array_equal(store.rows.labels, labels)
    np.testing.assert_allclose(store.logits("a", np.arange(230)), bare_logits(inputs), atol=0.1)
    assert verify(str(tmp_path / "cask")).problems == ()
    assert precompute(config).tasks == 0


def test_a_store_grows_more_than_once_and_a_later_teacher_labels_all_of_it(tmp_path: Path) -> None:
    write_rows(tmp_path)
    inputs, labels = keep_first(tmp_path, 40)
    for rows in (40, 70, 230):
        put(tmp_path, inputs[:rows], labels[:rows])
        precompute(run_config(tmp_path, teacher("a")))
    summary = precompute(run_config(tmp_path, teacher("a"), teacher("b", kwargs={"seed": 1})))
    assert summary.teachers["a"].new_rows == 0 and summary.teachers["b"].new_rows == 230
    store = open_store(str(tmp_path / "cask"))
    assert [(segment.first, segment.rows) for segment in store.segments] == [(0, 40), (40, 30), (70, 160)]
    np.testing.assert_allclose(store.logits("a", np.arange(230)), bare_logits(inputs), atol=0.1)


def test_rows_that_changed_or_are_gone_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path)
    inputs, labels = keep_first(tmp_path, 100)
    config = run_config(tmp_path, teacher("a"))
    precompute(config)
    before = identities_of(tmp_path / "cask")
    changed = inputs.copy()
    changed[50] += 1
    put(tmp_path, changed, labels)
    with pytest.raises(ManifestMismatch, match="content_hash: differs in 1 rows, first in row 50"):
        precompute(config)
    put(tmp_path, inputs[:90], labels[:90])
    with pytest.raises((ManifestMismatch, TransferSetError), match="found 90, expected 100"):
        precompute(config)
    assert identities_of(tmp_path / "cask") == before
