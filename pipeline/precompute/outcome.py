"""What was given up in a run: one error that says it, and what the run's record keeps of it."""

from __future__ import annotations

from collections.abc import Sequence

from softcask.pipeline.config.credentials import redacted
from softcask.pipeline.executors.base import Failure, name_of
from softcask.storage_schemas.errors import ExecutorError, SoftcaskError, UnitsGivenUp
from softcask.storage_schemas.runs import FailedUnit

_SHOWN = 5
_RECORDED = 10_000


def gave_up(failures: Sequence[Failure], store: str, generation: int | None = None) -> Exception:
    """The error that a run ends in.

    Args:
        failures: All that was given up, at least one.
        store: URI of the store.
        generation: What all else was sealed as; None where there is nothing else.

    Returns:
        Where only whole pools were given up, an error of the kind that each of the first one's tasks had.
    """
    units = [failure for failure in failures if failure.task is not None]
    pools = [failure for failure in failures if failure.task is None]
    if not units:
        return _pools_error(pools, store, generation)
    kept = f"Everything else is sealed as generation {generation}" if generation else "Nothing was committed"
    lines = [f"  {_named(failure)}: {_said(failure.error)}" for failure in units[:_SHOWN]]
    if len(units) > _SHOWN:
        lines.append(f"  and {len(units) - _SHOWN:,} more")
    lines += [f"  all that was left of {failure.pool}: {_said(failure.error)}" for failure in pools]
    count = "1 unit was" if len(units) == 1 else f"{len(units):,} units were"
    return UnitsGivenUp(
        "\n".join([f"{count} given up:", *lines, f"{kept} of {store}."])
        + " This run's runs/RUN/run.json lists what was given up. Mend the cause and run the same command: "
        "it does what is missing, and that alone."
    )


def _pools_error(pools: Sequence[Failure], store: str, generation: int | None) -> Exception:
    first, *others = pools
    told = [str(first.error), *(f"And {other.pool}: {_said(other.error)}" for other in others)]
    if generation is not None:
        told.append(f"What was done until then is sealed as generation {generation} of {store}.")
    if len(told) == 1:
        return first.error
    kind = type(first.error) if isinstance(first.error, SoftcaskError) else ExecutorError
    error = kind("\n".join(told))
    error.__cause__ = first.error
    return error


def failed_units(failures: Sequence[Failure]) -> tuple[FailedUnit, ...]:
    """What a run's record keeps: the first ten thousand."""
    return tuple(
        FailedUnit(
            teachers=tuple(getattr(failure.task, "teachers", (failure.pool,))),
            unit=getattr(failure.task, "unit", ""),
            attempts=failure.attempts,
            error=redacted(_said(failure.error)),
        )
        for failure in failures[:_RECORDED]
    )


def _named(failure: Failure) -> str:
    teachers = ", ".join(getattr(failure.task, "teachers", (failure.pool,)))
    times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    return f"{name_of(failure.task)} of {teachers}, tried {times}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
