from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image
from tests.worlds import objects_of, sections, teacher

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.preparing import block as making
from softcask.pipeline.preparing.driver import prepare
from softcask.pipeline.transfer_sets.image_folder import ImageFolderOptions
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.pipeline.transfer_sets.prepared import PreparedOptions
from softcask.storage_schemas.errors import (
    ConfigError,
    ExecutorError,
    ManifestMismatch,
    QuarantineExceeded,
    TransferSetError,
)

ROWS = 23


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of all sizes in two folders; rows 3 and 20 cannot be read."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for row in range(ROWS):
        place = folder / "ab"[row >= 12] / f"{row:03d}.png"
        place.parent.mkdir(exist_ok=True)
        height, width = random.integers(6, 20, 2)
        Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8)).save(place)
        if row in (3, 20):
            place.write_bytes(b"no image")
    return folder


def config(images: Path, folder: Path, **changes: Any) -> RunConfig:
    image = {"height": 6, "width": 4, "mode": "L"}
    source = {"kind": "image_folder", "root": str(images), "image": image, "max_quarantined": 0.1}
    return RunConfig.model_validate(sections(folder, teacher(), **({"transfer_set": source} | changes)))


def test_the_rows_ids_labels_hashes_and_reasons_are_those_of_the_source(images: Path, tmp_path: Path) -> None:
    run = config(images, tmp_path)
    summary = prepare(run, str(tmp_path / "p"), block_rows=5)
    assert (summary.rows, summary.quarantined, summary.blocks, summary.made) == (ROWS, 2, 5, 5)
    source, prepared = run.transfer_set.open(), PreparedOptions(path=summary.path).open()
    tables = [index_rows(each, num_classes=5, max_quarantined=0.1) for each in (source, prepared)]
    assert tables[0].equals(tables[1]) and tables[0]["quarantine"].null_count == ROWS - 2
    positions_B = np.array([22, 3, 0, 7, 7])
    found, expected = prepared.read(positions_B), source.read(positions_B)
    np.testing.assert_array_equal(found.inputs_B, expected.inputs_B)
    assert found.problems == expected.problems and set(found.problems) == {1}


def test_a_store_begun_from_the_source_goes_on_from_what_was_prepared(images: Path, tmp_path: Path) -> None:
    run = config(images, tmp_path, store={"uri": str(tmp_path / "cask"), "unit_rows": 8})
    precompute(run)
    before = objects_of(tmp_path / "cask")
    summary = prepare(run, str(tmp_path / "p"), block_rows=5)
    prepared = {"kind": "prepared", "path": summary.path, "max_quarantined": 0.1}
    again = precompute(config(images, tmp_path, transfer_set=prepared, store={"uri": str(tmp_path / "cask")}))
    assert again.tasks == 0 and objects_of(tmp_path / "cask") == before
    other = config(
        images, tmp_path, transfer_set=prepared, store={"uri": str(tmp_path / "b"), "unit_rows": 8}
    )
    precompute(other)
    assert objects_of(tmp_path / "b") == before


class _Died(Exception):
    pass


@pytest.mark.parametrize("moment", ["between blocks", "before the rows' table", "before the receipt"])
def test_killed_anywhere_and_run_again_it_makes_what_is_missing_and_nothing_twice(
    images: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, undisturbed, resumed = config(images, tmp_path), tmp_path / "a", tmp_path / "b"
    prepare(run, str(undisturbed), block_rows=5)
    calls = 0

    def die_at_the_third(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise _Died
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(_Died):
        name = {"between blocks": "make_block", "before the rows' table": "publish_table"}.get(moment)
        if name is None:
            real: Any = making.PreparedBlock.to_bytes
            patch.setattr(making.PreparedBlock, "to_bytes", die_at_the_third)
        else:
            real = getattr(making, name)
            patch.setattr(making, name, die_at_the_third)
        prepare(run, str(resumed), block_rows=5)
    with pytest.raises(TransferSetError, match="it is not complete; run `softcask prepare`"):
        PreparedOptions(path=str(resumed)).open()
    stood = {path: path.stat().st_mtime_ns for path in (resumed / "blocks").glob("*.json")}
    assert len(stood) == 2
    assert prepare(run, str(resumed)).made == 3
    assert {path: path.stat().st_mtime_ns for path in stood} == stood
    assert objects_of(resumed) == objects_of(undisturbed)
    assert prepare(run, str(resumed)).made == 0


def test_a_block_that_a_writer_left_half_made_is_made_again(images: Path, tmp_path: Path) -> None:
    run, folder = config(images, tmp_path), tmp_path / "p"
    prepare(run, str(tmp_path / "whole"), block_rows=5)
    (folder / "blocks").mkdir(parents=True)
    for name in ("plan.json", "blocks/00000000.npy", "blocks/00000000.parquet"):
        (folder / name).write_bytes(
            (tmp_path / "whole" / name).read_bytes()[: 20 if "block" in name else None]
        )
    prepare(run, str(folder))
    assert objects_of(folder) == objects_of(tmp_path / "whole")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small Ray cluster, unless the session has one already."""
    import ray

    if ray.is_initialized():
        yield
        return
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_ray_data_makes_the_same_objects_as_this_process(images: Path, tmp_path: Path) -> None:
    executor = {"kind": "ray", "workers": 2}
    prepare(config(images, tmp_path), str(tmp_path / "here"), block_rows=5)
    summary = prepare(config(images, tmp_path, executor=executor), str(tmp_path / "there"), block_rows=5)
    assert summary.made == 5 and objects_of(tmp_path / "there") == objects_of(tmp_path / "here")
    labels = {"kind": "image_folder", "root": str(images), "class_names": ["z"] * 9 + ["a", "b"]}
    bad = config(
        images, tmp_path, executor=executor, transfer_set=labels | {"image": {"height": 2, "width": 2}}
    )
    with pytest.raises(ExecutorError, match=r"row 'a/000\.png' \(position 0\) has label 9, expected 0 to 4"):
        prepare(bad, str(tmp_path / "bad"))


def test_it_may_lie_on_any_filesystem_that_knows_conditional_writes(images: Path, tmp_path: Path) -> None:
    run = config(images, tmp_path)
    prepare(run, "memory://prepared/set", block_rows=5)
    prepared = PreparedOptions(path="memory://prepared/set").open()
    np.testing.assert_array_equal(
        prepared.read(np.arange(ROWS)).inputs_B, run.transfer_set.open().read(np.arange(ROWS)).inputs_B
    )
    with pytest.raises(ConfigError, match="in this process's memory, where no worker sees it"):
        prepare(config(images, tmp_path, executor={"kind": "ray"}), "memory://prepared/set")
    fsspec.filesystem("memory").rm("/prepared", recursive=True)


def test_too_many_unreadable_rows_end_it_at_once(images: Path, tmp_path: Path) -> None:
    source = config(images, tmp_path).transfer_set.model_copy(update={"max_quarantined": 0.0})
    made: list[int] = []
    with pytest.raises(QuarantineExceeded, match=r"1 of 23 rows \(4\.35%\) cannot be read: 'a/003\.png': "):
        prepare(
            config(images, tmp_path, transfer_set=source),
            str(tmp_path / "p"),
            block_rows=5,
            watch=lambda done, _: made.append(done),
        )
    assert made == [0, 5]


def test_a_folder_that_was_begun_otherwise_or_holds_something_else_is_refused(
    images: Path, tmp_path: Path
) -> None:
    prepare(config(images, tmp_path), str(tmp_path / "p"), block_rows=5)
    with pytest.raises(ManifestMismatch, match="block_rows: found 6, expected 5"):
        prepare(config(images, tmp_path), str(tmp_path / "p"), block_rows=6)
    source = ImageFolderOptions(
        root=str(images), image={"height": 9, "width": 4, "mode": "L"}, max_quarantined=0.1
    )
    with pytest.raises(ManifestMismatch, match=r"input_shape: found \[9, 4\], expected \[6, 4\]\n"):
        prepare(config(images, tmp_path, transfer_set=source), str(tmp_path / "p"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.tex' and no plan\.json: it is not empty"):
        prepare(config(images, tmp_path), str(tmp_path / "mine"))


def test_rows_that_need_no_decoding_are_refused(images: Path, tmp_path: Path) -> None:
    summary = prepare(config(images, tmp_path), str(tmp_path / "p"))
    again = config(images, tmp_path, transfer_set={"kind": "prepared", "path": summary.path})
    with pytest.raises(ConfigError, match="rows are prepared already: there is nothing to decode"):
        prepare(again, str(tmp_path / "q"))


def test_a_source_that_changes_meanwhile_is_noticed_before_all_is_called_complete(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for row in range(4):
        Image.new("L", (4, 6), row).save(tmp_path / "images" / f"{row}.png")

    def change(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "images" / "9.png").write_bytes(b"more")

    with pytest.raises(TransferSetError, match=r"changed while it was prepared:\n  files\.root\.bytes: "):
        prepare(config(tmp_path / "images", tmp_path), str(tmp_path / "p"), block_rows=2, watch=change)
    assert not (tmp_path / "p" / "prepared.json").exists()


def test_the_blocks_are_plain_npy_files(images: Path, tmp_path: Path) -> None:
    prepare(config(images, tmp_path), str(tmp_path / "p"), block_rows=20)
    blocks = [np.load(tmp_path / "p" / "blocks" / f"{number:08d}.npy") for number in (0, 1)]
    assert [block.shape for block in blocks] == [(20, 6, 4), (3, 6, 4)]
    assert json.loads((tmp_path / "p" / "prepared.json").read_text())["input_dtype"] == "uint8"
