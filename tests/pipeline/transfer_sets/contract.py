"""What every source must do, whatever it reads: a new source's tests subclass this."""

from __future__ import annotations

import json
import pickle
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet


class TransferSetContract(ABC):
    """Subclass with `options`, `expected_BX`, `expected_labels_B` and `change`; at least five rows."""

    @abstractmethod
    def options(self, folder: Path) -> SourceOptions:
        """Write the source's files into a folder, the same ones each time, and say how they are opened."""

    @abstractmethod
    def expected_BX(self) -> NDArray[Any]:
        """What `options` wrote, as it must be read."""

    @abstractmethod
    def expected_labels_B(self) -> NDArray[np.int64] | None:
        """The labels that `options` wrote."""

    @abstractmethod
    def change(self, folder: Path) -> None:
        """Write other rows, or more of them, to the same files."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> TransferSet:
        return self.options(tmp_path).open()

    def test_it_is_a_transfer_set_of_the_rows_that_were_written(self, source: TransferSet) -> None:
        expected_BX = self.expected_BX()
        assert isinstance(source, TransferSet)
        assert len(source) == len(expected_BX)
        assert source.input_shape == expected_BX.shape[1:]
        read = source.read(np.arange(len(source)))
        assert not read.problems
        assert read.inputs_B.dtype == source.input_dtype == expected_BX.dtype
        np.testing.assert_array_equal(read.inputs_B, expected_BX)

    def test_labels_are_the_ones_that_were_written(self, source: TransferSet) -> None:
        labels_B, expected_B = source.labels(1, 4), self.expected_labels_B()
        if expected_B is None:
            assert labels_B is None
        else:
            assert labels_B is not None and labels_B.dtype == np.int64
            np.testing.assert_array_equal(labels_B, expected_B[1:4])

    def test_positions_are_read_in_the_order_asked_for_repeated_or_not(self, source: TransferSet) -> None:
        positions_B = np.array([4, 0, 3, 3, 0])
        np.testing.assert_array_equal(source.read(positions_B).inputs_B, self.expected_BX()[positions_B])
        assert source.read(np.array([], dtype=np.int64)).inputs_B.shape == (0, *source.input_shape)

    def test_what_was_read_belongs_to_the_reader(self, source: TransferSet) -> None:
        source.read(np.arange(3)).inputs_B[:] = 1
        np.testing.assert_array_equal(source.read(np.arange(3)).inputs_B, self.expected_BX()[:3])

    def test_ids_are_unique_and_do_not_depend_on_how_they_are_asked_for(self, source: TransferSet) -> None:
        ids = list(source.sample_ids(0, len(source)))
        assert all(isinstance(sample_id, str) for sample_id in ids)
        assert len(set(ids)) == len(source)
        assert list(source.sample_ids(2, 5)) == ids[2:5]

    def test_opened_elsewhere_the_same_file_gives_the_same_rows(
        self, source: TransferSet, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        self._assert_same(self.options(elsewhere).open(), source)

    def test_a_pickled_source_reads_the_same_rows_and_takes_none_along(self, source: TransferSet) -> None:
        before = pickle.dumps(source)
        source.read(np.arange(len(source)))
        source.sample_ids(0, len(source))
        source.labels(0, len(source))
        assert len(pickle.dumps(source)) == len(before)
        self._assert_same(pickle.loads(before), source)  # noqa: S301

    def test_threads_read_what_one_thread_reads(self, source: TransferSet) -> None:
        with ThreadPoolExecutor(4) as threads:
            asked = [np.array([row, 0]) for row in range(len(source))] * 4
            read = list(threads.map(lambda positions_B: source.read(positions_B).inputs_B, asked))
        np.testing.assert_array_equal(np.stack(read), self.expected_BX()[np.stack(asked)])

    def test_its_description_is_json_names_no_folder_and_stays(
        self, source: TransferSet, tmp_path: Path
    ) -> None:
        described = json.dumps(source.describe())
        assert str(tmp_path) not in described and "/" not in described
        assert source.describe()["kind"] == self.options(tmp_path / ".").kind
        source.read(np.arange(2))
        assert json.dumps(source.describe()) == described

    def test_its_description_changes_with_the_file(self, source: TransferSet, tmp_path: Path) -> None:
        options = self.options(tmp_path)
        opened = options.open()
        described = opened.describe()
        assert opened.unchanged()
        self.change(tmp_path)
        assert options.open().describe() != described
        assert not opened.unchanged()

    def _assert_same(self, one: TransferSet, other: TransferSet) -> None:
        rows = np.arange(len(other))
        assert list(one.sample_ids(0, len(one))) == list(other.sample_ids(0, len(other)))
        np.testing.assert_array_equal(one.read(rows).inputs_B, other.read(rows).inputs_B)
        np.testing.assert_array_equal(one.labels(0, 3), other.labels(0, 3))  # type: ignore[arg-type]
