"""One student of a sweep, in whatever process it is trained: its end is an answer, whichever it is."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from softcask.jobs.sweeping.students import Student
from softcask.pipeline.student.training.results import StudentProgress, StudentResult
from softcask.storage_schemas.errors import SoftcaskError

ERROR = "error.txt"
_LOCK = ".training"

Tell = Callable[[str, StudentProgress], None]
"""Told a student's name and where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one student ended.

    Attributes:
        name: Of the student.
        result: What `train_student` gave; None where it failed.
        error: Why it failed; None where it did not.
        trained: Whether anything was trained now, and not all of it before.
    """

    name: str
    result: StudentResult | None = None
    error: str | None = None
    trained: bool = False


def train_one(
    student: Student, tell: Tell, *, restart: bool = False, num_threads: int | None = None
) -> Outcome:
    """Train a student, or what is left of it. An error is its outcome, and no other student's.

    Args:
        student: Which.
        tell: Told where it stands.
        restart: Discard what an earlier training left.
        num_threads: Torch's CPU threads, where the student's file states none.
    """
    from softcask.pipeline.student.training.loop import train_student

    trained = False

    def watch(progress: StudentProgress) -> None:
        nonlocal trained
        trained = trained or progress.loss is not None
        tell(student.name, progress)

    config = student.config
    if num_threads is not None and config.training.num_threads is None:
        training = config.training.model_copy(update={"num_threads": num_threads})
        config = config.model_copy(update={"training": training})
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with _alone(output, lambda: watch(_waiting(config.training.epochs))):
            result = train_student(config, progress=watch, restart=restart)
    except SoftcaskError as error:
        return Outcome(name=student.name, error=str(error), trained=trained)
    except Exception as error:
        # Of a user's model or of torch: a sweep tells its line, and who mends it wants to see where.
        kept = _keep(output / ERROR, "".join(traceback.format_exception(error)))
        return Outcome(name=student.name, error=f"{type(error).__name__}: {error}{kept}", trained=trained)
    with suppress(OSError):
        (output / ERROR).unlink(missing_ok=True)
    return Outcome(name=student.name, result=result, trained=trained)


@contextmanager
def _alone(output: Path, say_waiting: Callable[[], None]) -> Iterator[None]:
    """Wait for another process that trains into the same folder; the system ends its hold when it dies."""
    try:
        import fcntl
    except ImportError:  # not on this system: two sweeps must not be run at once there
        yield
        return
    handle = os.open(output / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say_waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a filesystem that knows no locks
            pass
        yield
    finally:
        os.close(handle)


def _waiting(epochs: int) -> StudentProgress:
    return StudentProgress(
        message="another process is training it; waiting for that", epoch=0, epochs=epochs, step=0, steps=0
    )


def _keep(path: Path, text: str) -> str:
    try:
        path.write_text(text, "utf-8")
    except OSError:
        return ""
    return f" (its traceback is in {path})"
