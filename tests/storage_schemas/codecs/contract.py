"""What every codec must do; its own test file subclasses this and adds how exact it is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.registry import codec_from, codec_named


class CodecContract:
    """Subclass it and give the fixture `codec`."""

    classes = 37

    @pytest.fixture
    def codec(self) -> Codec:
        """The codec under test."""
        raise NotImplementedError

    @pytest.fixture
    def logits_BC(self) -> NDArray[np.float32]:
        """Rows as classifiers give them: a crowd and one that stands out."""
        generator = np.random.default_rng(5)
        logits_BC = generator.normal(0, 3, (16, self.classes))
        logits_BC[np.arange(16), generator.integers(0, self.classes, 16)] += 12
        return logits_BC.astype(np.float32)

    def test_columns_say_what_is_encoded(self, codec: Codec, logits_BC: NDArray[np.float32]) -> None:
        columns = codec.encode(logits_BC)
        described = {column.name: column for column in codec.columns(self.classes)}
        assert columns.keys() == described.keys()
        for name, values in columns.items():
            assert values.dtype == described[name].dtype
            assert values.dtype.newbyteorder("<") == values.dtype
            assert values.shape == (len(logits_BC), *described[name].row_shape)
            assert len(described[name].dimension_names) == values.ndim

    def test_it_is_rebuilt_from_what_a_store_says(self, codec: Codec) -> None:
        assert codec_named(codec.name) is type(codec)
        assert codec_from(codec.to_spec()) == codec
        assert pickle.loads(pickle.dumps(codec)) == codec  # noqa: S301  # as Ray sends it

    def test_a_row_depends_on_no_other(self, codec: Codec, logits_BC: NDArray[np.float32]) -> None:
        together = codec.encode(logits_BC)
        for row in range(len(logits_BC)):
            for name, values in codec.encode(logits_BC[row : row + 1]).items():
                assert values.tobytes() == together[name][row : row + 1].tobytes()

    def test_logits_come_back_in_float32_below_their_maximum(
        self, codec: Codec, logits_BC: NDArray[np.float32]
    ) -> None:
        before = logits_BC.copy()
        decoded = codec.decode(codec.encode(logits_BC))
        np.testing.assert_array_equal(logits_BC, before)
        assert decoded.shifted_BC.shape == logits_BC.shape
        assert decoded.shifted_BC.dtype == decoded.row_max_B.dtype == np.float32
        assert (decoded.shifted_BC <= 0).all()
        assert np.isfinite(decoded.shifted_BC).all()
        np.testing.assert_array_equal(decoded.shifted_BC.argmax(axis=1), logits_BC.argmax(axis=1))

    def test_no_rows_are_no_rows(self, codec: Codec) -> None:
        columns = codec.encode(np.empty((0, self.classes), dtype=np.float32))
        assert {len(values) for values in columns.values()} == {0}
        assert codec.decode(columns).shifted_BC.shape == (0, self.classes)

    def test_it_claims_a_range_of_temperatures(self, codec: Codec) -> None:
        least, most = codec.temperatures
        assert 0 < least <= 1 <= most
