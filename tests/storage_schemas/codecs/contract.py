"""What every codec must do; its own test file subclasses this and adds how exact it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from softcask.storage_schemas import npy
from softcask.storage_schemas.codecs.base import Codec, Column
from softcask.storage_schemas.codecs.registry import codec_from, codec_named
from softcask.storage_schemas.errors import CorruptObject, StoreError


class CodecContract:
    """Subclass it and give the fixture `codec`.

    Attributes:
        classes: Of the logits it is tried with.
    """

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

    def test_columns_fit_their_container(self, codec: Codec) -> None:
        assert codec.container in ("zarr", "parquet")
        for column in codec.columns(self.classes):
            assert codec.container == "parquet" or not (column.dtype.hasobject or column.split)
            assert column.row_bytes > 0 or column.dtype.hasobject

    def test_it_is_rebuilt_from_what_a_store_says(self, codec: Codec, logits_BC: NDArray[np.float32]) -> None:
        assert codec_named(codec.name) is type(codec)
        kept = {name: npy.from_bytes(npy.to_bytes(array), name) for name, array in codec.arrays().items()}
        columns = codec.encode(logits_BC)
        spec = type(codec.to_spec()).model_validate_json(codec.to_spec().model_dump_json())
        for again in (codec_from(spec, kept), pickle.loads(pickle.dumps(codec))):  # noqa: S301  # as Ray sends it
            assert again.to_spec() == codec.to_spec()
            assert again.temperatures == codec.temperatures
            assert_equal_columns(again.encode(logits_BC), columns)
            decoded_BC = again.decode(columns).shifted_BC
            assert decoded_BC.tobytes() == codec.decode(columns).shifted_BC.tobytes()

    def test_without_its_arrays_it_still_says_what_lies_where(self, codec: Codec) -> None:
        bare = codec_from(codec.to_spec())
        assert bare.columns(self.classes) == codec.columns(self.classes)
        assert bare.temperatures == codec.temperatures

    def test_another_configuration_or_container_is_refused(self, codec: Codec) -> None:
        spec = codec.to_spec()
        other = "zarr" if spec.container == "parquet" else "parquet"
        for change in (
            {"configuration": spec.configuration | {"surprise": 1}},
            {"container": other},
        ):
            with pytest.raises(StoreError, match=codec.name):
                codec_from(spec.model_copy(update=change), codec.arrays())

    def test_it_does_not_matter_how_logits_lie_in_memory(
        self, codec: Codec, logits_BC: NDArray[np.float32]
    ) -> None:
        assert_equal_columns(codec.encode(np.asfortranarray(logits_BC)), codec.encode(logits_BC))

    def test_a_row_depends_on_no_other(self, codec: Codec, logits_BC: NDArray[np.float32]) -> None:
        together = codec.encode(logits_BC)
        for row in range(len(logits_BC)):
            alone = codec.encode(logits_BC[row : row + 1])
            assert_equal_columns(alone, {name: values[row : row + 1] for name, values in together.items()})

    @pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
    def test_logits_come_back_in_float32_below_their_maximum(
        self, codec: Codec, logits_BC: NDArray[np.float32], share: float
    ) -> None:
        before = logits_BC.copy()
        least, most = codec.temperatures
        decoded = codec.decode(codec.encode(logits_BC), least + share * (most - least))
        np.testing.assert_array_equal(logits_BC, before)
        assert decoded.shifted_BC.shape == logits_BC.shape
        assert decoded.shifted_BC.dtype == decoded.row_max_B.dtype == np.float32
        assert np.isfinite(decoded.shifted_BC).all()
        assert (decoded.shifted_BC.max(axis=1) == 0).all()
        np.testing.assert_array_equal(decoded.shifted_BC.argmax(axis=1), logits_BC.argmax(axis=1))
        expected_B = before.max(axis=1) if codec.keeps_row_max else np.zeros(len(before))
        np.testing.assert_array_equal(decoded.row_max_B, expected_B)

    def test_logits_that_are_kept_are_the_same_at_any_temperature(
        self, codec: Codec, logits_BC: NDArray[np.float32]
    ) -> None:
        columns = codec.encode(logits_BC)
        least, most = (codec.decode(columns, t).shifted_BC for t in codec.temperatures)
        if codec.keeps_logits:
            assert least.tobytes() == most.tobytes()
        else:
            assert codec.temperatures[0] == codec.temperatures[1] or least.tobytes() != most.tobytes()

    def test_columns_are_read_and_not_written(self, codec: Codec, logits_BC: NDArray[np.float32]) -> None:
        columns = codec.encode(logits_BC)
        expected_BC = codec.decode(columns).shifted_BC
        for values in columns.values():
            values.flags.writeable = False  # as those that are mapped from a file
        assert codec.decode(columns).shifted_BC.tobytes() == expected_BC.tobytes()

    def test_no_rows_are_no_rows(self, codec: Codec) -> None:
        columns = codec.encode(np.empty((0, self.classes), dtype=np.float32))
        assert {len(values) for values in columns.values()} == {0}
        assert codec.decode(columns).shifted_BC.shape == (0, self.classes)

    def test_it_claims_a_range_of_temperatures(self, codec: Codec) -> None:
        least, most = codec.temperatures
        assert 0 < least <= 1 <= most

    def test_any_bytes_give_finite_logits_or_are_refused(self, codec: Codec) -> None:
        described = codec.columns(self.classes)

        @given(data=st.data())
        def any_bytes(data: st.DataObject) -> None:
            columns = {column.name: data.draw(raw(column, 2)) for column in described}
            check_decodes_or_is_refused(codec, columns, self.classes)

        any_bytes()

    def test_any_change_of_a_byte_gives_finite_logits_or_is_refused(
        self, codec: Codec, logits_BC: NDArray[np.float32]
    ) -> None:
        columns = codec.encode(logits_BC[:2])

        @given(data=st.data())
        def one_byte(data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(sorted(columns)))
            changed = columns | {name: data.draw(with_a_byte_changed(columns[name]))}
            check_decodes_or_is_refused(codec, changed, self.classes)

        one_byte()


def assert_equal_columns(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> None:
    """Byte for byte."""
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == theirs[name].dtype
        assert values.tolist() == theirs[name].tolist()
        assert values.dtype.hasobject or values.tobytes() == theirs[name].tobytes()


def check_decodes_or_is_refused(codec: Codec, columns: Mapping[str, NDArray[Any]], classes: int) -> None:
    """No other error, no warning, and never a number that is not finite."""
    for temperature in codec.temperatures:
        try:
            decoded = codec.decode(columns, temperature)
        except CorruptObject:
            continue
        assert decoded.shifted_BC.shape == (2, classes)
        scaled_BC = decoded.shifted_BC.astype(np.float64) / temperature
        scaled_BC -= scaled_BC.max(axis=1, keepdims=True)
        log_probs_BC = scaled_BC - np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))
        assert np.isfinite(log_probs_BC).all()
        assert np.isfinite(decoded.row_max_B).all()


def raw(column: Column, rows: int) -> st.SearchStrategy[NDArray[Any]]:
    """Any bytes as rows of a column."""
    if column.dtype.hasobject:
        strings = st.lists(st.binary(max_size=64), min_size=rows, max_size=rows)
        return strings.map(lambda given: np.array([*given, None], dtype=object)[:-1])
    size = rows * column.row_bytes
    return st.binary(min_size=size, max_size=size).map(
        lambda given: np.frombuffer(given, column.dtype).reshape(rows, *column.row_shape)
    )


@st.composite
def with_a_byte_changed(draw: st.DrawFn, values: NDArray[Any]) -> NDArray[Any]:
    """The same column but for one byte."""
    changed = values.copy()
    if values.dtype.hasobject:
        row = draw(st.integers(0, len(values) - 1))
        changed[row] = draw(st.binary(max_size=len(values[row]) + 8))
        return changed
    flat = changed.reshape(-1).view(np.uint8)
    flat[draw(st.integers(0, len(flat) - 1))] = draw(st.integers(0, 255))
    return changed
