"""What comes of a unit's batches; when a codec's loss on them is told, and when it ends the run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from softcask.pipeline.store.writing.encoding import UnitEncoder, drift
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.errors import CodecDrift
from softcask.storage_schemas.manifest import Fidelity


def at(temperature: float, mean: float) -> Fidelity:
    return Fidelity(temperature=temperature, mean=mean, max=2 * mean)


def test_a_loss_as_expected_or_that_no_student_notices_is_not_told() -> None:
    assert drift([at(1, 0.02), at(4, 0.003)], [at(1, 0.01), at(4, 0.001)], "a on u") is None
    assert drift([at(1, 9e-5)], [at(1, 1e-9)], "a on u") is None
    assert drift([at(1, 0.5)], [at(4, 0.001)], "a on u") is None  # nothing was expected at this T


def test_several_times_the_expected_loss_is_told_with_its_temperature() -> None:
    told = drift([at(1, 0.01), at(4, 0.01)], [at(1, 0.01), at(4, 0.001)], "a on u")
    assert told is not None
    assert told.startswith("a on u: the codec loses 0.01 nats at T=4") and "10 times the 0.001" in told


def test_a_harmful_loss_of_many_times_the_expected_one_is_refused() -> None:
    with pytest.raises(CodecDrift, match=r"loses 0.06 nats at T=2 on .* 60 times the 0.001 .* new name"):
        drift([at(2, 0.06)], [at(2, 0.001)], "a on u")
    assert drift([at(2, 0.04)], [at(2, 0.001)], "a on u") is not None


@pytest.mark.parametrize("classes", [10, 5000])
def test_a_unit_is_encoded_as_its_rows_are_however_they_come(classes: int) -> None:
    logits_RC = np.random.default_rng(0).normal(0, 3, (700, classes)).astype(np.float32)
    encoder = UnitEncoder(Dense16(), rows=700, num_classes=classes)
    batch_BC = np.empty((100, classes), dtype=np.float32)
    for first, stop in pairwise([0, 30, 31, 131, 131, 231, 331, 431, 531, 600]):
        batch_BC[: stop - first] = logits_RC[first:stop]
        encoder.add(batch_BC[: stop - first])  # one array again and again: it may change once it was added
    encoder.add(logits_RC[600:])
    found, expected = encoder.finish(), Dense16().encode(logits_RC)
    assert {name: values.tobytes() for name, values in found.columns.items()} == {
        name: values.tobytes() for name, values in expected.items()
    }
    np.testing.assert_array_equal(found.top_R, logits_RC.argmax(axis=1))


def test_a_unit_without_rows_has_columns_of_none() -> None:
    found = UnitEncoder(Dense16(), rows=0, num_classes=7).finish()
    assert {name: values.shape for name, values in found.columns.items()} == {
        "logits": (0, 7),
        "row_max": (0,),
    }
    assert found.top_R.shape == (0,)
