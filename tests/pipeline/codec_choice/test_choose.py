"""Which codec a budget leads to, from trials whose figures are given."""

from __future__ import annotations

import pytest

from softcask.pipeline.codec_choice.choose import choose
from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.codec_choice.trials import Trial
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import Loss
from softcask.storage_schemas.errors import ConfigError

DENSE16 = Dense16()


def trial(label: str, row_bytes: float, kl: dict[float, float], codec: Codec = DENSE16) -> Trial:
    losses = {t: Loss(mean=mean, p99=2 * mean, max=4 * mean) for t, mean in kl.items()}
    return Trial(label=label, codec=codec, row_bytes=row_bytes, once_bytes=0, losses=losses)


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
    with pytest.raises(ValueError, match=r"found neither max_bytes \(bytes a row\) nor max_kl"):
        CodecRequest(name="auto")


def test_a_codec_that_is_named_is_chosen_or_none() -> None:
    """However well another one would do, which is tried only to be shown."""
    trials = [*TRIALS, trial("eight", 1000, {1.0: 1e-3, 4.0: 1e-3}, Dense8())]
    assert choose(request(name="dense8", max_kl=1e-2), trials, "a")[0].label == "eight"
    with pytest.raises(ConfigError, match="codec dense8"):
        choose(request(name="dense8", max_kl=1e-4), trials, "a")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "dense16", "k": 3}, "k = 3 is the number of logits that topk keeps; found codec dense16"),
        ({"name": None, "k": 3}, "found codec by default"),
        ({"name": "lowrank", "k": 3}, "found codec lowrank"),
        ({"name": "topk", "coder": "ans"}, 'coder = "ans" says how lowrank packs'),
    ],
)
def test_what_does_not_apply_to_the_codec_is_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(**said)


def test_more_logits_than_there_are_classes_cannot_be_kept() -> None:
    assert request(name="topk", k=5).resolved(5).k == 5
    with pytest.raises(ConfigError, match="k = 6 logits a row of 5 classes; expected 1 to 5"):
        request(name="topk", k=6).resolved(5)
