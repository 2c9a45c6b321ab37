"""`batch_size = "auto"`: what fits is found, and the store says what it was computed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import ROWS, objects_of, run_config, teacher, write_rows

from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import ManifestMismatch, SoftcaskError
from softcask.storage_schemas.manifest import TeacherManifest, UnitCommit


def manifest_of(folder: Path) -> TeacherManifest:
    key = keys.teacher_manifest("a")
    return TeacherManifest.from_bytes(StoreObjects.at(str(folder / "cask")).read(key), key)


def receipts_of(folder: Path) -> list[UnitCommit]:
    objects = StoreObjects.at(str(folder / "cask"))
    names = objects.names(keys.commits_folder("a"))
    found = (f"{keys.commits_folder('a')}/{name}" for name in names)
    return [UnitCommit.from_bytes(objects.read(key), key) for key in found]


def test_what_fits_is_found_told_and_recorded_and_the_logits_are_the_same_up_to_rounding(
    tmp_path: Path,
) -> None:
    free, fixed = (write_rows(tmp_path / name) for name in ("free", "fixed"))
    greedy = {"factory": "toy_models:greedy", "kwargs": {"most": 10}}
    summary = precompute(run_config(free, teacher("a", **greedy, batch_size="auto")))
    precompute(run_config(fixed, teacher("a", **greedy, batch_size=10)))
    assert summary.rows == ROWS
    # Units of 32 rows; the probe's 32 rows are the first that do not fit.
    assert {receipt.batch_size for receipt in receipts_of(free)} == {8}
    assert {receipt.batch_size for receipt in receipts_of(fixed)} == {None}
    assert (manifest_of(free).batch_size, manifest_of(fixed).batch_size) == ("auto", 10)
    assert [line.partition("; ")[2] for line in summary.warnings] == [
        "16 rows at once from here on",
        "8 rows at once from here on",
    ]
    found, expected = (
        open_store(str(folder / "cask")).logits("a", np.arange(ROWS)) for folder in (free, fixed)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_receipts_of_a_fixed_size_have_the_bytes_they_always_had(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    receipts = [
        data
        for key, data in objects_of(tmp_path / "cask").items()
        if "/commits/UNIT" in key or "/commits/s0" in key
    ]
    assert receipts
    assert not any(b"batch_size" in data or b"may_differ" in data for data in receipts)


def test_a_fixed_size_that_does_not_fit_names_the_option(tmp_path: Path) -> None:
    write_rows(tmp_path)
    greedy = teacher("a", factory="toy_models:greedy", kwargs={"most": 10}, batch_size=16)
    with pytest.raises(
        SoftcaskError, match=r"'a' ran out of memory on cpu with 16 rows.*lower batch_size.*\"auto\""
    ):
        precompute(run_config(tmp_path, greedy))


def test_a_size_that_is_given_up_to_trial_later_needs_a_new_name(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    with pytest.raises(ManifestMismatch, match='batch_size: found "auto", expected 16'):
        precompute(run_config(tmp_path, teacher("a", batch_size="auto")))
