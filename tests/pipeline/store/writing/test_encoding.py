"""When a codec's loss on a unit is told, and when it ends the run."""

from __future__ import annotations

import pytest

from softcask.pipeline.store.writing.encoding import drift
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
