from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.transfer_sets.contract import TransferSetContract
from tests.worlds import CLASSES, run_config, write_rows

from softcask.pipeline.preparing.driver import prepare
from softcask.pipeline.transfer_sets.prepared import PreparedOptions
from softcask.storage_schemas.errors import TransferSetError

ROWS = 11


def written(folder: Path) -> Path:
    """Eleven rows, prepared in blocks of four."""
    if not (folder / "p").exists():
        write_rows(folder, rows=ROWS)
        for name in ("inputs.npy", "labels.npy"):  # the same source, whenever it is written
            os.utime(folder / name, (0, 0))
        prepare(run_config(folder), str(folder / "p"), block_rows=4)
    return folder / "p"


class TestPrepared(TransferSetContract):
    def options(self, folder: Path) -> PreparedOptions:
        return PreparedOptions(path=str(written(folder)))

    def expected_BX(self) -> NDArray[Any]:
        inputs = np.random.default_rng(0).normal(size=(ROWS, 6, 4)).astype(np.float32)
        inputs[:, 0, 0] = np.arange(ROWS)
        return inputs

    def expected_labels_B(self) -> NDArray[np.int64]:
        generator = np.random.default_rng(0)
        generator.normal(size=(ROWS, 6, 4))
        return generator.integers(0, CLASSES, ROWS)

    def change(self, folder: Path) -> None:
        (folder / "p" / "blocks" / "00000001.npy").write_bytes(b"other")


def refusal(folder: Path) -> str:
    with pytest.raises(TransferSetError) as error:
        source = PreparedOptions(path=str(folder)).open()
        source.labels(0, 1)
        source.read(np.arange(len(source)))
    return str(error.value)


def test_what_is_not_prepared_or_not_complete_is_named(tmp_path: Path) -> None:
    assert "nowhere: no such file" in refusal(tmp_path / "nowhere")
    folder = written(tmp_path)
    (folder / "prepared.json").unlink()
    assert "no prepared.json: this is no prepared transfer set, or it is not complete" in refusal(folder)


@pytest.mark.parametrize("name", ["prepared.json", "rows.parquet", "blocks/00000002.npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "grown", "gone"])
def test_every_damage_is_an_error_that_names_the_object(tmp_path: Path, name: str, damage: str) -> None:
    path = written(tmp_path) / name
    data = path.read_bytes()
    middle = len(data) // 2
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "cut": data[:-1],
                "grown": data + b"\0",
            }[damage]
        )
    assert name in refusal(tmp_path / "p")
