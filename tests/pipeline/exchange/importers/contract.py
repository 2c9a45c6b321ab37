"""What every importer must hold to. A format's test subclasses it and writes a source by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import ForeignLogits, Opener, Source
from softcask.pipeline.exchange.importers.sparse import TopRows
from softcask.storage_schemas.errors import SoftcaskError
from softcask.storage_schemas.fingerprint import canonical


@dataclass(frozen=True)
class Written:
    """A source, and what is in it.

    Attributes:
        source: As a user names it.
        ids: Ids of all rows.
        classes_NK: Known classes of each row.
        log_probs_NK: Their log-probabilities, or logits where all classes are known.
        atol: How far values may be off by the format's own rounding.
        data: A file of numbers among the source's.
    """

    source: Source
    ids: list[str]
    classes_NK: NDArray[np.int64]
    log_probs_NK: NDArray[np.float64]
    atol: float
    data: Path


class ImporterContract:
    """Subclass it and override both."""

    @property
    def opener(self) -> Opener:
        raise NotImplementedError

    def write(self, folder: Path) -> Written:
        """At least three rows."""
        raise NotImplementedError

    @pytest.fixture
    def written(self, tmp_path: Path) -> Written:
        return self.write(tmp_path)

    @pytest.fixture
    def opened(self, written: Written) -> ForeignLogits:
        return self.opener(written.source)

    def test_rows_have_the_ids_that_were_written(self, opened: ForeignLogits, written: Written) -> None:
        assert opened.sample_ids().to_pylist() == written.ids

    def test_known_classes_have_the_values_that_were_written(
        self, opened: ForeignLogits, written: Written
    ) -> None:
        found = opened.read(np.arange(len(written.ids)))
        order_NK = np.argsort(written.classes_NK, axis=1)
        if isinstance(found, TopRows):
            classes_NK, values_NK = found.classes_BK, found.log_probs_BK
        else:
            assert found.dtype == np.float32
            classes_NK, values_NK = np.broadcast_to(np.arange(opened.num_classes), found.shape), found
        np.testing.assert_array_equal(classes_NK, np.take_along_axis(written.classes_NK, order_NK, axis=1))
        expected_NK = np.take_along_axis(written.log_probs_NK, order_NK, axis=1)
        np.testing.assert_allclose(values_NK, expected_NK, atol=written.atol)

    def test_other_classes_have_what_is_missing_to_one_but_none_more_than_a_known_one(
        self, opened: ForeignLogits, written: Written
    ) -> None:
        known = written.classes_NK.shape[1]
        if opened.top_k is None:
            assert known == opened.num_classes
            return
        assert opened.top_k == known
        found = opened.read(np.arange(len(written.ids)))
        assert isinstance(found, TopRows)
        assert found.tail_log_B is not None
        others = opened.num_classes - known
        missing_N = 1 - np.exp(written.log_probs_NK).sum(axis=1)
        most_N = others * np.exp(written.log_probs_NK.min(axis=1))
        np.testing.assert_allclose(np.exp(found.tail_log_B), np.minimum(missing_N, most_N), atol=4e-3)

    def test_any_positions_give_the_rows_at_them(self, opened: ForeignLogits, written: Written) -> None:
        whole = opened.read(np.arange(len(written.ids)))
        asked = np.array([2, 0, 2, len(written.ids) - 1, 1])
        some = opened.read(asked)
        if isinstance(whole, TopRows):
            assert isinstance(some, TopRows)
            for name in ("classes_BK", "log_probs_BK", "tail_log_B"):
                np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[asked])
        else:
            np.testing.assert_array_equal(some, whole[asked])

    def test_a_source_is_told_by_the_content_of_its_files(
        self, opened: ForeignLogits, written: Written, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        facts = canonical(opened.describe())
        elsewhere = self.write(tmp_path_factory.mktemp("elsewhere"))
        assert canonical(self.opener(elsewhere.source).describe()) == facts
        assert str(written.source.path.parent) not in json.dumps(facts)
        content = bytearray(written.data.read_bytes())
        content[len(content) // 2] ^= 1
        written.data.write_bytes(content)
        assert canonical(opened.describe()) != facts

    def test_a_file_cut_short_is_refused_by_name(self, written: Written) -> None:
        written.data.write_bytes(written.data.read_bytes()[:-1])
        with pytest.raises(SoftcaskError, match=written.data.name):
            self.opener(written.source).read(np.arange(len(written.ids)))

    def test_a_place_where_nothing_stands_is_named(self, written: Written, tmp_path: Path) -> None:
        with pytest.raises(SoftcaskError, match="nowhere"):
            self.opener(replace(written.source, path=tmp_path / "nowhere"))

    def test_an_option_of_another_format_is_refused(self, written: Written) -> None:
        unused = {"settings": Path("x"), "ids": Path("x"), "top_k": 3}
        for name, value in unused.items():
            if getattr(written.source, name) is None:
                try:
                    self.opener(replace(written.source, **{name: value}))
                except SoftcaskError:
                    return
        raise AssertionError("options of other formats are taken in silence")
