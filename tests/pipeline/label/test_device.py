"""Encoding where logits are, with the CPU as the device: what CUDA alone does is not run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.worlds import ROWS, objects_of, run_config, teacher, write_rows

from softcask.pipeline.device_codecs.registry import device_codec
from softcask.pipeline.label import device
from softcask.pipeline.label.device import DeviceEncoder, encode_on_host, twin_of
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.writing.encoding import UnitEncoder
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import SoftcaskError, TeacherOutOfMemory

CLASSES = 70
LOGITS_RC = np.random.default_rng(3).normal(0, 3, (90, CLASSES)).astype(np.float32)
TOPK = TopK(settings=Settings(head_size=8, num_classes=CLASSES))


@pytest.fixture
def as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits on the CPU are encoded as those on a card are."""
    monkeypatch.setattr(device, "twin_of", lambda codec, place: device_codec(codec, place))


def encoder_of(codec: Codec) -> DeviceEncoder:
    return DeviceEncoder(codec, device_codec(codec, "cpu"), rows=len(LOGITS_RC), num_classes=CLASSES)


@pytest.mark.parametrize("codec", [Dense16(), Dense8(), TOPK], ids=lambda codec: codec.name)
def test_a_unit_is_encoded_as_on_the_host(codec: Codec) -> None:
    here, there = UnitEncoder(codec, rows=len(LOGITS_RC), num_classes=CLASSES), encoder_of(codec)
    for first in range(0, len(LOGITS_RC), 40):
        here.add(LOGITS_RC[first : first + 40])
        assert there.add(torch.from_numpy(LOGITS_RC[first : first + 40])) == slice(first, min(first + 40, 90))
    assert there.usable(slice(0, 90))
    found, expected = there.finish(), here.finish()
    assert found.columns.keys() == expected.columns.keys()
    for name, values in expected.columns.items():
        assert found.columns[name].dtype == values.dtype
        if name == "tail":  # log odds in half precision: torch and numpy may round them to neighbours
            np.testing.assert_allclose(found.columns[name], values, rtol=2e-3, atol=2e-3)
        else:
            assert found.columns[name].tobytes() == values.tobytes()
    np.testing.assert_array_equal(found.top_R, LOGITS_RC.argmax(axis=1))
    assert [each.temperature for each in found.fidelity] == [each.temperature for each in expected.fidelity]
    for one, other in zip(found.fidelity, expected.fidelity, strict=True):
        assert one.mean == pytest.approx(other.mean, rel=0.05, abs=1e-6)


def test_logits_that_are_not_finite_are_known_by_their_rows() -> None:
    encoder, logits_BC = encoder_of(Dense16()), torch.from_numpy(LOGITS_RC.copy())
    logits_BC[50, 7] = torch.inf
    rows = [encoder.add(logits_BC[first : first + 30]) for first in (0, 30, 60)]
    assert [encoder.usable(part) for part in rows] == [True, False, True]


def test_a_batch_that_could_not_be_encoded_may_come_again_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(Dense16())
    encode = encoder._twin.encode

    def most_20(logits_BC: torch.Tensor) -> Any:
        if len(logits_BC) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return encode(logits_BC)

    monkeypatch.setattr(encoder._twin, "encode", most_20)
    with pytest.raises(TeacherOutOfMemory, match="no memory to encode 90 rows by dense16 on cpu: CUDA"):
        encoder.add(torch.from_numpy(LOGITS_RC))
    for first in range(0, 90, 15):
        encoder.add(torch.from_numpy(LOGITS_RC[first : first + 15]))
    assert encoder.finish().columns["logits"].tobytes() == Dense16().encode(LOGITS_RC)["logits"].tobytes()


def test_absent_classes_are_looked_at_and_taken_out_on_the_device() -> None:
    absent = (0, 33, 69)
    stored_RC = np.delete(LOGITS_RC, absent, axis=1)
    logits_RC = LOGITS_RC.copy()
    logits_RC[:, absent] = -np.inf
    encoder = DeviceEncoder(
        Dense16(), device_codec(Dense16(), "cpu"), rows=90, num_classes=CLASSES, absent=absent
    )
    fine = encoder.add(torch.from_numpy(logits_RC[:60]))
    logits_RC[70, 33] = 1.5
    wrong = encoder.add(torch.from_numpy(logits_RC[60:]))
    assert (encoder.usable(fine), encoder.usable(wrong)) == (True, False)
    found, expected = encoder.finish(), Dense16().encode(stored_RC)
    assert found.columns["logits"].tobytes() == expected["logits"].tobytes()
    np.testing.assert_array_equal(found.top_R, stored_RC.argmax(axis=1))


@pytest.mark.parametrize("codec", [Dense16(), Dense8()], ids=lambda codec: codec.name)
def test_what_is_faster_on_the_host_gives_the_same_bytes(codec: Codec) -> None:
    found, expected = encode_on_host(codec)(LOGITS_RC), codec.encode(LOGITS_RC)
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in expected.items()
    }


def test_a_codec_on_the_host_has_no_twin_there() -> None:
    assert twin_of(Dense16(), torch.device("cpu")) is None


@pytest.mark.parametrize("codec", ["dense16", "dense8"])
def test_a_store_that_was_encoded_on_the_device_is_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    here, there = (write_rows(tmp_path / name) for name in ("here", "there"))
    store = {"unit_rows": 32, "codec": codec}
    precompute(run_config(here, store={"uri": str(here / "cask"), **store}))
    monkeypatch.setattr(device, "twin_of", lambda codec, place: device_codec(codec, place))
    monkeypatch.setattr(device, "encode_on_host", None)  # nobody asks for it
    summary = precompute(run_config(there, store={"uri": str(there / "cask"), **store}))
    assert summary.rows == ROWS
    assert objects_of(there / "cask") == objects_of(here / "cask")


@pytest.mark.usefixtures("as_device")
@pytest.mark.parametrize("row", [33.0, 229.0])  # in the middle of the set, and in its last batch
def test_nan_on_the_device_ends_the_unit_with_the_name_of_its_row(tmp_path: Path, row: float) -> None:
    write_rows(tmp_path)
    bad = teacher("a", factory="toy_models:faulty", kwargs={"where": row / 2})
    with pytest.raises(SoftcaskError, match=rf"1 NaN .* first in row 'inputs-{row:08.0f}'"):
        precompute(run_config(tmp_path, bad))
