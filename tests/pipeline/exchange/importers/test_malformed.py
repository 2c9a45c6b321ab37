"""Any bytes at all: rows that make sense, or one typed error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from softcask.pipeline.exchange.importers.base import Opener, Source
from softcask.pipeline.exchange.importers.distillkit import open_distillkit
from softcask.pipeline.exchange.importers.parquet import open_parquet
from softcask.pipeline.exchange.importers.sparse import TopRows
from softcask.pipeline.exchange.importers.tinyvit import open_tinyvit
from softcask.storage_schemas.errors import ExchangeError

BYTES = st.integers(0, 255)


def read(opener: Opener, source: Source) -> None:
    """Read all rows; what comes back is what the codec can keep."""
    try:
        opened = opener(source)
        found = opened.read(np.arange(len(opened.sample_ids())))
    except ExchangeError as error:
        assert source.path.name in str(error)
        return
    assert isinstance(found, TopRows)
    assert found.tail_log_B is not None
    assert (np.diff(found.classes_BK, axis=1) > 0).all()
    assert found.classes_BK.min() >= 0
    assert found.classes_BK.max() < opened.num_classes
    assert np.isfinite(found.log_probs_BK).all()
    assert np.isfinite(found.tail_log_B).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(BYTES, min_size=24, max_size=24))
def test_any_record_of_tinyvit(record: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rank0-keys.txt").write_text("key\n")
        Path(folder, "rank0-values.bin").write_bytes(bytes(record))
        read(open_tinyvit, Source(path=Path(folder), classes=50_000, top_k=5))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(BYTES, min_size=23, max_size=23),
    indices=st.lists(BYTES, min_size=5, max_size=5),
    delta=st.booleans(),
    terms=st.sampled_from(["[0, 1]", "[sqrt, exp]", "[4, -1]"]),
)
def test_any_position_of_distillkit(values: list[int], indices: list[int], delta: bool, terms: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # 2 exact values of 4 bytes, 2 terms of 4, a scale of 2 with 4 residuals of 9 bits.
        Path(folder, "compression_config.yaml").write_text(
            f"{{d: 60, k: 6, exact_k: 2, polynomial_terms: {terms}, delta_encoding: {str(delta).lower()},\n"
            "residual_bins: [{scale_dtype: float16, element_bits: 9, num_elements: 4}]}"
        )
        row = {"compressed_logprobs": [values], "bytepacked_indices": [indices]}
        pq.write_table(pa.Table.from_pylist([row]), Path(folder, "data_0.parquet"))
        read(open_distillkit, Source(path=Path(folder)))


@settings(max_examples=60, deadline=None)
@given(
    indices=st.lists(st.lists(st.integers(-2, 11), min_size=1, max_size=3), min_size=1, max_size=3),
    values=st.lists(st.lists(st.floats() | st.none(), max_size=3) | st.none(), min_size=3, max_size=3),
    tail=st.lists(st.floats() | st.none(), min_size=3, max_size=3),
)
def test_any_lists_of_plain_parquet(indices: list[Any], values: list[Any], tail: list[Any]) -> None:
    rows = len(indices)
    columns = {
        "sample_id": [str(row) for row in range(rows)],
        "indices": indices,
        "logprobs": pa.array(values[:rows], pa.list_(pa.float64())),
        "tail_logprob": pa.array(tail[:rows], pa.float64()),
    }
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(columns), Path(folder, "a.parquet"))
        read(open_parquet, Source(path=Path(folder, "a.parquet"), classes=10))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_bit_of_a_parquet_file_turned_over(place: int, bit: int) -> None:
    table = pa.table({"sample_id": ["a", "b"], "indices": [[1, 2], [3, 4]], "logprobs": [[-1.0, -2.0]] * 2})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        pq.write_table(table, path, write_page_checksum=True)
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1 << bit
        path.write_bytes(data)
        read(open_parquet, Source(path=path, classes=10))
