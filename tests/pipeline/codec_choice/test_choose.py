"""Which codec a budget leads to, from trials whose figures are given."""

from __future__ import annotations

import pytest

from softcask.pipeline.codec_choice.choose import choose
from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.codec_choice.trials import Trial
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import Loss
from softcask.storage_schemas.errors import ConfigError


def trial(label: str, row_bytes: float, kl: dict[float, float]) -> Trial:
    losses = {t: Loss(mean=mean, p99=2 * mean, max=4 * mean) for t, mean in kl.items()}
    return Trial(label=label, codec=Dense16(), row_bytes=row_bytes, once_bytes=0, losses=losses)


TRIALS = [
    trial("exact", 2000, {1.0: 1e-7, 4.0: 1e-7}),
    trial("half", 1000, {1.0: 1e-5, 4.0: 1e-6}),
    trial("small", 256, {1.0: 0.02, 4.0: 0.5}),
    trial("smaller", 128, {1.0: 0.04}),
]


def request(**said: object) -> CodecRequest:
    return CodecRequest.model_validate({"name": "auto", "temperatures": (1.0, 4.0), **said})


def test_a_bound_on_kl_takes_the_fewest_bytes_that_hold_it_at_every_temperature() -> None:
    assert choose(request(max_kl=1e-4), TRIALS, "a")[0].label == "half"
    assert choose(request(max_kl=0.6), TRIALS, "a")[0].label == "small"
    assert choose(request(max_kl=0.05, temperatures=(1.0,)), TRIALS, "a")[0].label == "smaller"


def test_a_bound_on_bytes_takes_what_loses_least_at_the_worst_temperature() -> None:
    assert choose(request(max_bytes=1500), TRIALS, "a")[0].label == "half"
    assert choose(request(max_bytes=300), TRIALS, "a")[0].label == "small"


def test_no_claim_for_a_temperature_is_no_fit() -> None:
    with pytest.raises(ConfigError, match="no codec keeps the logits of teacher 'a' within 200 B a row"):
        choose(request(max_bytes=200, max_kl=100), TRIALS, "a")


def test_a_budget_that_cannot_be_met_is_refused_with_what_could_be_had() -> None:
    with pytest.raises(ConfigError, match=r"half: 1,000 B a row, mean KL up to 1e-05") as refused:
        choose(request(max_bytes=500, max_kl=1e-3), TRIALS, "a")
    assert "within 500 B a row and mean KL 0.001 at T = 1, 4" in str(refused.value)


def test_the_reason_says_what_was_asked_and_what_was_tried() -> None:
    reason = choose(request(max_kl=1e-4), TRIALS, "a")[1]
    assert reason.startswith("half: 1,000 B a row") and "small: 256 B a row, mean KL up to 0.5" in reason


def test_without_a_word_the_number_of_classes_decides() -> None:
    names = {classes: CodecRequest().resolved(classes).name for classes in (2, 256, 257, 4096, 4097)}
    assert names == {2: "dense16", 256: "dense16", 257: "dense8", 4096: "dense8", 4097: "auto"}
    assert CodecRequest().resolved(50_000).max_bytes == 256


def test_auto_without_a_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="found neither max_bytes nor max_kl"):
        CodecRequest(name="auto")
