"""Pick the codec that meets a budget, and say why; or refuse, and say what could be had."""

from __future__ import annotations

from collections.abc import Sequence

from softcask.pipeline.codec_choice.request import AUTO, CodecRequest
from softcask.pipeline.codec_choice.trials import Trial
from softcask.storage_schemas.errors import ConfigError


def choose(request: CodecRequest, trials: Sequence[Trial], teacher: str) -> tuple[Trial, str]:
    """The trial that meets the request, and the reason in words.

    Of those that meet `max_kl` the one of fewest bytes; with `max_bytes` alone, the one that loses least.

    Args:
        request: What is asked for.
        trials: What was tried, at least one.
        teacher: Whose logits, for the message.

    Raises:
        ConfigError: No trial meets the budget.
    """
    fitting = [trial for trial in trials if _meets(request, trial)]
    if not fitting:
        raise ConfigError(_refusal(request, trials, teacher))
    if request.max_kl is not None:
        best = min(fitting, key=lambda trial: trial.row_bytes)
    else:
        best = min(fitting, key=lambda trial: trial.worst(request.temperatures))
    return best, f"{_described(best, request)}; asked for {_asked(request)}; tried: {_all(request, trials)}"


def _meets(request: CodecRequest, trial: Trial) -> bool:
    wanted = request.name in (None, AUTO, trial.codec.name)
    small = request.max_bytes is None or trial.row_bytes <= request.max_bytes
    return (
        wanted and small and (request.max_kl is None or trial.worst(request.temperatures) <= request.max_kl)
    )


def _refusal(request: CodecRequest, trials: Sequence[Trial], teacher: str) -> str:
    return (
        f"no codec keeps the logits of teacher {teacher!r} within {_asked(request)}. Tried: "
        f"{_all(request, trials)}. Raise the budget, or ask for fewer temperatures; `softcask plan` shows "
        "each codec at each temperature. Nothing was labelled yet."
    )


def _asked(request: CodecRequest) -> str:
    said = []
    if request.max_bytes is not None:
        said.append(f"{request.max_bytes} B a row")
    if request.max_kl is not None:
        said.append(f"mean KL {request.max_kl:g}")
    if request.name not in (None, AUTO):
        said.append(f"codec {request.name}")
    temperatures = ", ".join(f"{temperature:g}" for temperature in request.temperatures)
    return f"{' and '.join(said) or 'any codec'} at T = {temperatures}"


def _all(request: CodecRequest, trials: Sequence[Trial]) -> str:
    return "; ".join(_described(trial, request) for trial in trials)


def _described(trial: Trial, request: CodecRequest) -> str:
    worst = trial.worst(request.temperatures)
    return f"{trial.label}: {trial.row_bytes:,.0f} B a row, mean KL up to {worst:.2g}"
