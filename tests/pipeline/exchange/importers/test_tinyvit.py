"""TinyViT's keys and values, written here byte by byte as its manager writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.exchange.importers.contract import ImporterContract, Written

from softcask.pipeline.exchange.importers.base import Opener, Source
from softcask.pipeline.exchange.importers.tinyvit import open_tinyvit
from softcask.storage_schemas.errors import ExchangeError

CLASSES, TOP = 40_000, 6


def top_rows(rows: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Classes and probabilities `[rows, TOP]` of a softmax, the largest first."""
    generator = np.random.default_rng(seed)
    logits = 5 * generator.normal(size=(rows, CLASSES))
    logits[:, 37_000] += 20  # a class that int16 writes as a negative number
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = np.argsort(-probabilities, axis=1)[:, :TOP]
    return classes, np.take_along_axis(probabilities, classes, axis=1).astype(np.float16)


def write_rank(
    folder: Path, rank: int, keys: list[str], classes: NDArray[np.int64], probabilities: NDArray[np.float16]
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"rank{rank}-keys.txt").write_text("".join(f"{key}\n" for key in keys))
    with (folder / f"rank{rank}-values.bin").open("wb") as file:
        for row, (classes_K, probabilities_K) in enumerate(zip(classes, probabilities, strict=True)):
            seed = np.int32(1000 + row)
            file.write(seed.tobytes() + classes_K.astype(np.int16).tobytes() + probabilities_K.tobytes())


def epoch(folder: Path) -> Path:
    return folder / f"logits_top{TOP}_epoch3"


class TestTinyVit(ImporterContract):
    @property
    def opener(self) -> Opener:
        return open_tinyvit

    def write(self, folder: Path) -> Written:
        classes, probabilities = top_rows(7)
        write_rank(epoch(folder), 0, [f"n01/{i}.JPEG" for i in range(4)], classes[:4], probabilities[:4])
        write_rank(epoch(folder), 1, [f"n02/{i}.JPEG" for i in range(3)], classes[4:], probabilities[4:])
        return Written(
            source=Source(path=epoch(folder), classes=CLASSES),
            ids=[*(f"n01/{i}.JPEG" for i in range(4)), *(f"n02/{i}.JPEG" for i in range(3))],
            classes_NK=classes,
            log_probs_NK=np.log(probabilities.astype(np.float64)),
            atol=1e-6,
            data=epoch(folder) / "rank0-values.bin",
        )


def test_rank_2_comes_before_rank_10_and_a_key_that_two_ranks_have_counts_once(tmp_path: Path) -> None:
    classes, probabilities = top_rows(6)
    for rank, keys, rows in ((10, ["c", "a"], [4, 5]), (2, ["b", "a"], [2, 3]), (0, ["x", "y"], [0, 1])):
        write_rank(epoch(tmp_path), rank, keys, classes[rows], probabilities[rows])
    found = open_tinyvit(Source(path=epoch(tmp_path), classes=CLASSES))
    assert found.sample_ids().to_pylist() == ["x", "y", "b", "a", "c"]
    assert found.twice == 1
    rows = found.read(np.array([3, 4]))
    np.testing.assert_array_equal(rows.classes_BK, np.sort(classes[[3, 4]], axis=1))
    largest = np.log(probabilities[[3, 4], 0].astype(np.float64))
    np.testing.assert_allclose(rows.log_probs_BK.max(axis=1), largest)


def test_what_float16_rounds_to_zero_is_read_as_half_its_least_number(tmp_path: Path) -> None:
    probabilities = np.array([[1, 2.0**-24, 0, 0, 0, 0]], dtype=np.float16)
    write_rank(epoch(tmp_path), 0, ["a"], np.arange(TOP)[None], probabilities)
    rows = open_tinyvit(Source(path=epoch(tmp_path), classes=CLASSES)).read(np.array([0]))
    np.testing.assert_allclose(rows.log_probs_BK[0], np.log([1, 2.0**-24, *[2.0**-25] * 4]))
    np.testing.assert_allclose(rows.tail_log_B, np.log(2.0**-24))


def test_the_number_of_classes_a_row_may_be_told_where_the_folder_does_not_say_it(tmp_path: Path) -> None:
    classes, probabilities = top_rows(5)
    write_rank(tmp_path / "epoch0", 0, list("abcde"), classes, probabilities)
    source = Source(path=tmp_path / "epoch0", classes=CLASSES)
    with pytest.raises(ExchangeError, match="give --top-k"):
        open_tinyvit(source)
    assert open_tinyvit(replace(source, top_k=TOP)).top_k == TOP
    with pytest.raises(ExchangeError, match=r"rank0-values\.bin has 140 bytes, expected 120.*5 classes"):
        open_tinyvit(replace(source, top_k=TOP - 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"classes": (2, 3, 999)}, r"record 2 \(key c\) names class 999, expected 0 to 99"),
        ({"classes": (1, 2, 0)}, r"record 1 \(key b\) names a class twice"),
        ({"probabilities": (3, 0, np.nan)}, r"record 3 \(key d\) holds nan"),
        ({"probabilities": (3, 0, -0.1)}, r"record 3 \(key d\) holds nan"),
        ({"probabilities": (0, 5, 0.25)}, r"record 0 \(key a\) has probabilities that rise"),
        ({"probabilities": (4, 0, 0.9)}, r"record 4 \(key e\) has probabilities that sum to 1\.\d+"),
    ],
)
def test_a_row_that_no_writer_gives_is_named_with_its_file(
    spoil: dict[str, tuple[int, int, float]], message: str, tmp_path: Path
) -> None:
    classes = np.tile(np.arange(TOP), (5, 1))
    probabilities = np.tile([0.3, 0.2, 0.15, 0.1, 0.1, 0.1], (5, 1)).astype(np.float16)
    for name, (row, place, value) in spoil.items():
        {"classes": classes, "probabilities": probabilities}[name][row, place] = value
    write_rank(epoch(tmp_path), 0, list("abcde"), classes, probabilities)
    found = open_tinyvit(Source(path=epoch(tmp_path), classes=100))
    with pytest.raises(ExchangeError, match=rf"rank0-values\.bin: {message}"):
        found.read(np.arange(5))


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    source = Source(path=epoch(tmp_path), classes=100)
    classes, probabilities = np.arange(TOP)[None], np.full((1, TOP), 0.1, np.float16)
    write_rank(epoch(tmp_path), 0, ["a"], classes, probabilities)
    (epoch(tmp_path) / "rank1-keys.txt").write_text("b\n")
    with pytest.raises(ExchangeError, match="rank1 without the other"):
        open_tinyvit(source)
    (epoch(tmp_path) / "rank1-keys.txt").unlink()
    (epoch(tmp_path) / "rank0-keys.txt").write_text("a\na\n")
    with pytest.raises(ExchangeError, match=r"rank0-keys\.txt: 1 keys repeat"):
        open_tinyvit(source)
    with pytest.raises(ExchangeError, match="give --classes or --class-names"):
        open_tinyvit(replace(source, classes=None))
    with pytest.raises(ExchangeError, match="6 of 5 classes a row"):
        open_tinyvit(replace(source, classes=5))
    with pytest.raises(ExchangeError, match="is a file; expected the folder of an epoch"):
        open_tinyvit(replace(source, path=epoch(tmp_path) / "rank0-keys.txt", top_k=TOP))
