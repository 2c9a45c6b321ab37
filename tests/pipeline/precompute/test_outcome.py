"""How a run that gave something up says so."""

from __future__ import annotations

from softcask.pipeline.executors.base import Failure
from softcask.pipeline.plan import Task
from softcask.pipeline.precompute.outcome import failed_units, gave_up
from softcask.storage_schemas.errors import ExecutorError, TeacherError, UnitsGivenUp


def unit(index: int, error: str = "NaN in row 7") -> Failure:
    task = Task(group="g", segment="s0000", view=0, index=index, start=0, stop=16, teachers=("a", "b"))
    return Failure(pool="a, b", task=task, error=TeacherError(error), attempts=4)


def pool(name: str, error: Exception) -> Failure:
    return Failure(pool=name, task=None, error=error, attempts=1)


def test_units_are_named_with_their_error_and_what_to_do() -> None:
    error = gave_up([unit(3)], "/casks/one", 7)
    assert isinstance(error, UnitsGivenUp)
    first, second, third = str(error).splitlines()
    assert first == "1 unit was given up:"
    assert second == "  unit s0000-v0000-00000003 of a, b, tried 4 times: TeacherError: NaN in row 7"
    assert third.startswith("Everything else is sealed as generation 7 of /casks/one.")
    assert "run the same command" in third


def test_of_many_units_five_are_shown_and_ten_thousand_recorded() -> None:
    failures = [unit(index) for index in range(12_000)]
    lines = str(gave_up(failures, "/casks/one", 7)).splitlines()
    assert (lines[0], lines[6], len(lines)) == ("12,000 units were given up:", "  and 11,995 more", 8)
    assert len(failed_units(failures)) == 10_000


def test_a_pool_that_was_given_up_ends_in_the_error_of_its_tasks() -> None:
    error = TeacherError("expected [16, 5], found [16, 7]")
    assert gave_up([pool("a", error)], "/casks/one") is error
    sealed = gave_up([pool("a", error), pool("b", ExecutorError("b needs 4 GPU"))], "/casks/one", 2)
    assert type(sealed) is TeacherError
    assert str(sealed).splitlines() == [
        "expected [16, 5], found [16, 7]",
        "And b: ExecutorError: b needs 4 GPU",
        "What was done until then is sealed as generation 2 of /casks/one.",
    ]


def test_an_error_of_no_kind_of_ours_becomes_one() -> None:
    assert type(gave_up([pool("a", OSError(5, "x"))], "/casks/one", 2)) is ExecutorError
