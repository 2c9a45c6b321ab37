"""Logits of all classes as numpy files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.exchange.importers.contract import ImporterContract, Written

from softcask.pipeline.exchange.importers.arrays import open_arrays
from softcask.pipeline.exchange.importers.base import Opener, Source
from softcask.storage_schemas.errors import ExchangeError


class TestNpy(ImporterContract):
    @property
    def opener(self) -> Opener:
        return open_arrays

    def write(self, folder: Path) -> Written:
        logits = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
        np.save(folder / "big.npy", logits)
        return Written(
            source=Source(path=folder / "big.npy"),
            ids=[f"big-{row:08d}" for row in range(9)],
            classes_NK=np.tile(np.arange(4), (9, 1)),
            log_probs_NK=logits.astype(np.float64),
            atol=0,
            data=folder / "big.npy",
        )


def test_a_npz_holds_logits_ids_and_labels(tmp_path: Path) -> None:
    logits = np.random.default_rng(2).normal(size=(5, 3))
    path = tmp_path / "all.npz"
    np.savez_compressed(path, logits=logits, ids=np.array(list("abcde")), labels=np.array([0, 1, 2, -1, 0]))
    found = open_arrays(Source(path=path, ids=path, labels=path))
    assert found.sample_ids().to_pylist() == list("abcde")
    np.testing.assert_array_equal(found.labels(), [0, 1, 2, -1, 0])
    np.testing.assert_array_equal(found.read(np.array([3, 0])), logits[[3, 0]].astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_value_that_is_no_logit_is_named_by_its_row(value: float, tmp_path: Path) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = value
    np.save(tmp_path / "a.npy", logits)
    found = open_arrays(Source(path=tmp_path / "a.npy"))
    with pytest.raises(ExchangeError, match=r"a\.npy: row 2 holds NaN, infinity or"):
        found.read(np.array([3, 2]))


@pytest.mark.parametrize("array", [np.zeros((4, 3), np.int32), np.zeros((4, 3, 2)), np.zeros((4, 1))])
def test_what_is_not_rows_of_logits_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ExchangeError, match=r"expected floats \[rows, classes\]"):
        open_arrays(Source(path=tmp_path / "a.npy"))


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    source = Source(path=tmp_path / "a.npy", classes=5)
    with pytest.raises(ExchangeError, match="3 classes a row, expected 5"):
        open_arrays(source)
    assert open_arrays(replace(source, classes=3, id_prefix="x")).sample_ids()[0].as_py() == "x-00000000"
