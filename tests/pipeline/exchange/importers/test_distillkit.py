"""DistillKit's Parquet: files that DistillKit made itself, beside what it unpacks from them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.pipeline.exchange.importers.contract import ImporterContract, Written

from softcask.pipeline.exchange.importers.base import Opener, Source
from softcask.pipeline.exchange.importers.distillkit import open_distillkit
from softcask.pipeline.exchange.importers.distillkit_packing import Packing
from softcask.storage_schemas.errors import ExchangeError

MADE = Path(__file__).parents[3] / "data" / "distillkit"
"""Made by arcee-ai/DistillKit of April 2026, `decompressed.npz` by its `decompress_to_sparse`."""


class Made(ImporterContract):
    name = ""

    @property
    def opener(self) -> Opener:
        return open_distillkit

    def write(self, folder: Path) -> Written:
        shutil.copytree(MADE / self.name, folder / "captured")
        unpacked = np.load(MADE / self.name / "decompressed.npz")
        log_probs = unpacked["logprobs"].astype(np.float64)
        above = np.maximum(np.exp(log_probs).sum(axis=1, keepdims=True), 1)
        return Written(
            source=Source(path=folder / "captured"),
            ids=unpacked["ids"].tolist(),
            classes_NK=unpacked["indices"],
            log_probs_NK=log_probs - np.log(above),
            atol=2e-3 if self.name == "residuals" else 1e-6,  # there it rounds to float16 at the end
            data=folder / "captured" / "data_0.parquet",
        )


class TestRecommended(Made):
    """Exact values in bfloat16, a polynomial and a root; two files, three sequences."""

    name = "recommended"


class TestResiduals(Made):
    """Differences, error diffusion, residuals of 5 bits and of 1 bit."""

    name = "residuals"


def packed(values: NDArray[np.int64], bits: int) -> list[int]:
    """Numbers as a string of bits, the highest of each first."""
    text = "".join(f"{int(value):0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def write(folder: Path, sequences: list[list[tuple[list[int], list[float]]]], **settings: object) -> Source:
    """Sequences of positions of (classes, log-probabilities), all exact in float32; d = 100."""
    folder.mkdir(exist_ok=True)
    k = len(sequences[0][0][0])
    lines = {"d": 100, "k": k, "exact_k": k, "residual_bins": [], "delta_encoding": False, **settings}
    text = "".join(f"{name}: {str(value).lower()}\n" for name, value in lines.items())
    (folder / "compression_config.yaml").write_text(text)
    rows = [
        {
            "input_ids": list(range(len(positions) + 1)),
            "compressed_logprobs": [list(np.array(v, "<f4").tobytes()) for _, v in positions],
            "bytepacked_indices": [packed(np.array(c), 7) for c, _ in positions],
        }
        for positions in sequences
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data_0.parquet")
    return Source(path=folder)


GOOD = ([3, 99, 0], [-0.5, -1.5, -2.5])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (([3, 101, 0], [-0.5, -1.5, -2.5]), "names class 101, expected 0 to 99"),
        (([3, 3, 0], [-0.5, -1.5, -2.5]), "names a class twice"),
        (([3, 99, 0], [-0.5, float("-inf"), -2.5]), "holds -inf"),
        (([3, 99, 0], [-0.1, -0.5, -1.5]), r"has probabilities that sum to 1\.7\d+"),
        (([3, 99, 0], [-6.0, -6.5, -7.5]), "leaves .* its classes are not the largest"),
    ],
)
def test_a_position_that_no_writer_gives_is_named_with_its_file_and_row(
    bad: tuple[list[int], list[float]], message: str, tmp_path: Path
) -> None:
    found = open_distillkit(write(tmp_path / "captured", [[GOOD], [GOOD, bad]]))
    with pytest.raises(ExchangeError, match=rf"data_0\.parquet: row 1, position 1 {message}"):
        found.read(np.arange(3))


def test_an_approximation_that_sums_to_a_little_more_than_one_is_scaled_to_one(tmp_path: Path) -> None:
    values = np.log([0.6, 0.3, 0.2])
    found = open_distillkit(write(tmp_path / "captured", [[([3, 99, 0], values.tolist())]]))
    rows = found.read(np.array([0]))
    np.testing.assert_array_equal(rows.classes_BK, [[0, 3, 99]])
    np.testing.assert_allclose(np.exp(rows.log_probs_BK), [np.array([0.2, 0.6, 0.3]) / 1.1], rtol=1e-6)


def test_sequences_without_positions_have_no_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "captured", [[GOOD], [GOOD]])
    table = pq.read_table(source.path / "data_0.parquet")
    empty = table.slice(0, 1).to_pylist()[0] | {"compressed_logprobs": [], "bytepacked_indices": []}
    rows = [empty, *table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), source.path / "data_0.parquet")
    found = open_distillkit(source)
    assert found.sample_ids().to_pylist() == ["data_0-000001-00000", "data_0-000002-00000"]
    assert found.read(np.array([1, 0])).classes_BK.tolist() == [[0, 3, 99]] * 2


def test_settings_that_do_not_go_with_the_bytes_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "captured", [[GOOD]], exact_dtype="float16")
    with pytest.raises(
        ExchangeError, match="row 0 has 12 bytes of compressed_logprobs at a position, expected 6"
    ):
        open_distillkit(source).read(np.array([0]))
    with pytest.raises(ExchangeError, match="d = 100 classes, expected 99"):
        open_distillkit(replace(source, classes=99))
    for text, message in {
        "d: 100": "not DistillKit's settings: k: Field required; exact_k: Field required",
        "{": "not DistillKit's settings",
        "d: 100\nk: 3\nexact_k: 4\nresidual_bins: []": "more values than k = 3",
        "!!python/object/apply:os.system ['false']": "not DistillKit's settings",
    }.items():
        (source.path / "compression_config.yaml").write_text(text)
        with pytest.raises(ExchangeError, match=message):
            open_distillkit(source)
    (source.path / "compression_config.yaml").unlink()
    with pytest.raises(ExchangeError, match=r"compression_config\.yaml: no such file"):
        open_distillkit(source)


def test_the_older_layout_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = write(tmp_path / "captured", [[GOOD]])
    older = pa.table({"packed_indices": [[[1]]], "exact_values": [[[0.5]]], "coeffs": [[[0.5]]]})
    pq.write_table(older, source.path / "data_0.parquet")
    with pytest.raises(ExchangeError, match="packed_indices.*centred logits without their sum"):
        open_distillkit(source)


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "captured", [[GOOD, GOOD]])
    (row,) = pq.read_table(source.path / "data_0.parquet").to_pylist()
    row["bytepacked_indices"] = row["bytepacked_indices"][:1]
    pq.write_table(pa.Table.from_pylist([row]), source.path / "data_0.parquet")
    with pytest.raises(ExchangeError, match="row 0 has 2 compressed_logprobs and 1 bytepacked_indices"):
        open_distillkit(source)


def test_a_position_takes_as_many_bytes_as_distillkit_says() -> None:
    settings = {"d": 128_256, "k": 128, "exact_k": 16, "exact_dtype": "bfloat16", "residual_bins": []}
    packing = Packing.model_validate({**settings, "polynomial_terms": [0, 1, 2, 3, 4, "sqrt"]})
    # Its own total_bits() of these settings: 448 of log-probabilities, 2,176 of indices.
    assert (packing.value_bytes, packing.index_bytes) == (56, 272)
