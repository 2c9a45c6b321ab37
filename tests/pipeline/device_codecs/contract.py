"""What every twin must do, held against its numpy codec; its own test file subclasses this."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from softcask.pipeline.device_codecs.base import DeviceCodec, to_arrays, to_tensors
from softcask.pipeline.device_codecs.registry import device_codec
from softcask.pipeline.device_codecs.tempered import base
from softcask.storage_schemas.codecs.base import Codec

torch.set_num_threads(1)

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)


class DeviceCodecContract:
    """Subclass it and give the fixture `codec`.

    Attributes:
        exact: Whether its columns are numpy's byte for byte.
        tolerance: How far a log-probability may be from what numpy decodes of the same columns; 0 for equal
            bytes of the decoded logits.
    """

    classes = 150
    exact = True
    tolerance = 0.0

    @pytest.fixture
    def codec(self) -> Codec:
        """The numpy codec."""
        raise NotImplementedError

    @pytest.fixture
    def twin(self, codec: Codec) -> DeviceCodec:
        """Its twin on the CPU."""
        return device_codec(codec, "cpu")

    @pytest.fixture
    def logits_BC(self) -> NDArray[np.float32]:
        """Rows as classifiers give them, equal ones, rows with ties, and rows of a huge range."""
        generator = np.random.default_rng(11)
        logits_BC = generator.normal(0, 3, (24, self.classes))
        logits_BC[np.arange(16), generator.integers(0, self.classes, 16)] += 12
        logits_BC[16] = -3.25
        logits_BC[17] = np.round(logits_BC[17])
        logits_BC[18:20] *= 1e4
        return logits_BC.astype(np.float32)

    def test_its_columns_are_what_the_codec_describes(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32]
    ) -> None:
        columns = to_arrays(twin.encode(torch.from_numpy(logits_BC)))
        described = {column.name: column for column in codec.columns(self.classes)}
        assert columns.keys() == described.keys()
        for name, values in columns.items():
            assert values.dtype == described[name].dtype
            assert values.shape == (len(logits_BC), *described[name].row_shape)

    def test_it_encodes_as_numpy_does(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32]
    ) -> None:
        before = logits_BC.copy()
        columns = to_arrays(twin.encode(torch.from_numpy(logits_BC)))
        np.testing.assert_array_equal(logits_BC, before)
        if self.exact:
            expected = codec.encode(logits_BC)
            assert {name: values.tobytes() for name, values in columns.items()} == {
                name: values.tobytes() for name, values in expected.items()
            }

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_it_decodes_as_numpy_does(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32], temperature: float
    ) -> None:
        columns = codec.encode(logits_BC)
        expected_BC = codec.decode(columns, temperature).shifted_BC
        decoded_BC = twin.decode(to_tensors(columns, "cpu"), temperature)
        assert decoded_BC.dtype == torch.float32
        if not self.tolerance:
            assert decoded_BC.numpy().tobytes() == expected_BC.tobytes()
        one, other = (
            torch.log_softmax(values_BC.double() / temperature, dim=1)
            for values_BC in (decoded_BC, torch.from_numpy(expected_BC))
        )
        torch.testing.assert_close(one, other, rtol=self.tolerance, atol=self.tolerance)

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_tempered_rows_are_its_decoded_ones_without_being_whole(
        self,
        codec: Codec,
        twin: DeviceCodec,
        logits_BC: NDArray[np.float32],
        temperature: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(base, "NUMBERS_ON_CPU", 64 * len(logits_BC))  # three chunks
        columns = codec.encode(logits_BC)
        decoded_BC = torch.from_numpy(codec.decode(columns, temperature).shifted_BC).double()
        log_p_BC = torch.log_softmax(decoded_BC / temperature, dim=1)
        students_BC = torch.from_numpy(np.random.default_rng(4).normal(0, 3, logits_BC.shape))

        rows = twin.tempered(to_tensors(columns, "cpu"), temperature, students_BC)

        expected_B = (log_p_BC.exp() * (log_p_BC - students_BC / temperature)).sum(dim=1)
        torch.testing.assert_close(rows.sums_B, expected_B, rtol=1e-5, atol=1e-5)
        for first, last in ((0, self.classes), (7, 19), (self.classes - 1, self.classes)):
            p_Bn = torch.zeros(len(logits_BC), last - first, dtype=torch.float64)
            rows.subtract_from(p_Bn, first)
            torch.testing.assert_close(-p_Bn, log_p_BC.exp()[:, first:last], rtol=1e-5, atol=1e-6)

    def test_numpy_reads_what_it_wrote(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32]
    ) -> None:
        decoded_BC = codec.decode(to_arrays(twin.encode(torch.from_numpy(logits_BC)))).shifted_BC
        np.testing.assert_array_equal(decoded_BC.argmax(axis=1), logits_BC.argmax(axis=1))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_logits_of_half_the_width_are_taken_as_float32(
        self, twin: DeviceCodec, logits_BC: NDArray[np.float32], dtype: torch.dtype
    ) -> None:
        narrow_BC = torch.from_numpy(logits_BC[:18]).to(dtype)
        wide = to_arrays(twin.encode(narrow_BC.float()))
        for name, values in to_arrays(twin.encode(narrow_BC)).items():
            assert values.tobytes() == wide[name].tobytes()

    def test_no_rows_are_no_rows(self, codec: Codec, twin: DeviceCodec) -> None:
        columns = twin.encode(torch.empty(0, self.classes))
        assert {len(values) for values in columns.values()} == {0}
        assert tuple(twin.decode(columns).shape) == (0, self.classes)

    def test_columns_of_a_store_are_read_only_and_stay_as_they_are(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32]
    ) -> None:
        columns = codec.encode(logits_BC)
        before = {name: values.tobytes() for name, values in columns.items()}
        for values in columns.values():
            values.flags.writeable = False
        twin.decode(to_tensors(columns, "cpu"))
        assert {name: values.tobytes() for name, values in columns.items()} == before
