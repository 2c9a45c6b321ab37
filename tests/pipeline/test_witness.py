"""A worker writes nothing where the store's path means another disk than it does for the driver."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.worlds import run_config, write_rows

from softcask.pipeline.label import LabelRecipe
from softcask.pipeline.precompute import driver
from softcask.pipeline.precompute.driver import precompute
from softcask.storage_schemas.errors import StoreAccess


def test_each_worker_is_told_what_the_driver_has_written_and_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    recipes: list[LabelRecipe] = []
    run = driver._run

    def watched(executor: object, pools: list[object], *rest: object) -> None:
        recipes.extend(pool.recipe for pool in pools)  # type: ignore[attr-defined]
        run(executor, pools, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(driver, "_run", watched)
    precompute(run_config(tmp_path))
    (recipe,) = recipes
    assert recipe.witness is not None and (tmp_path / "cask" / recipe.witness).exists()


def test_a_worker_that_does_not_see_it_refuses_and_leaves_the_disk_as_it_is(tmp_path: Path) -> None:
    config = run_config(write_rows(tmp_path))
    other = tmp_path / "other"
    recipe = LabelRecipe(
        store_uri=str(other),
        transfer_set=config.transfer_set,
        teachers=config.teachers,
        manifests=(),
        witness="runs/20260101T000000-000000-abcd/progress.json",
    )
    with pytest.raises(StoreAccess, match="does not see .*/other/runs/.*progress.json.*another disk.*s3://"):
        recipe.build()
    assert not other.exists()
