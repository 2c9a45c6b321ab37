"""Students at the same time, each a task of a Ray cluster.

Only its options, where it stands and how it ended cross Ray: a student reads the store and writes its output
by itself, so both must be in the sight of whatever node it is trained on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from softcask.jobs.sweeping.students import Student
from softcask.jobs.sweeping.training import Outcome, Tell, train_one
from softcask.jobs.sweeping.where import Where
from softcask.pipeline.executors.ray.connection import connected
from softcask.pipeline.student.training.results import StudentProgress
from softcask.storage_schemas.errors import ExecutorError

_LOG = logging.getLogger(__name__)
_OBJECT_STORE_MB = 100
_SECONDS_BETWEEN_LOOKS = 0.5
_MOST_STARTS = 3


def train_on_ray(
    students: Sequence[Student], tell: Tell, where: Where, *, restart: bool = False
) -> Iterator[Outcome]:
    """Train students side by side.

    One whose worker died is begun again, where it has a checkpoint from there; the third time it has failed.

    Args:
        students: Which.
        tell: Told where each stands, from this thread.
        where: On what.
        restart: Discard what earlier trainings left.

    Yields:
        How each ended, as they end.

    Raises:
        ExecutorError: There is no cluster, or none of its nodes has what a student needs.
    """
    with connected(where.address, object_store_mb=_OBJECT_STORE_MB), _mark(students) as mark:
        yield from _Crew(where, tell, mark).outcomes(students, restart=restart)


class _Board:
    """An actor that keeps what students last said, until the driver looks. Every message is kept."""

    def __init__(self) -> None:
        self._last: dict[str, StudentProgress] = {}
        self._messages: list[tuple[str, StudentProgress]] = []

    def put(self, name: str, progress: StudentProgress) -> None:
        if progress.message:
            self._messages.append((name, progress))
        else:
            self._last[name] = progress

    def take(self) -> list[tuple[str, StudentProgress]]:
        taken = [*self._messages, *self._last.items()]
        self._last, self._messages = {}, []
        return taken


class _Crew:
    """The tasks of one sweep."""

    def __init__(self, where: Where, tell: Tell, mark: Path) -> None:
        self._tell = tell
        self._mark = str(mark)
        self._needs = _needs(where)  # first, for it may refuse
        self._most = where.most
        self._board: Any = ray.remote(num_cpus=0)(_Board).remote()
        self._running: dict[Any, tuple[Student, int]] = {}

    def outcomes(self, students: Sequence[Student], *, restart: bool) -> Iterator[Outcome]:
        waiting = deque((student, 1) for student in students)
        try:
            while waiting or self._running:
                while waiting and (self._most is None or len(self._running) < self._most):
                    student, start = waiting.popleft()
                    self._start(student, start, restart=restart and start == 1)
                ended, _ = ray.wait(list(self._running), timeout=_SECONDS_BETWEEN_LOOKS)
                self._look()
                for task in ended:
                    student, start = self._running.pop(task)
                    outcome = _outcome(task, student)
                    if isinstance(outcome, Outcome):
                        yield outcome
                    elif start < _MOST_STARTS:
                        waiting.append((student, start + 1))
                        self._tell(student.name, _lost(student, outcome))
                    else:
                        yield _given_up(student, outcome)
        finally:
            for task in self._running:
                with contextlib.suppress(RayError):
                    ray.cancel(task, force=True)

    def _start(self, student: Student, start: int, *, restart: bool) -> None:
        task: Any = ray.remote(max_retries=0, **self._needs)(_train)
        name = f"{student.name} ({start})" if start > 1 else student.name
        cpus = self._needs["num_cpus"]
        reference = task.options(name=name).remote(student, self._board, self._mark, restart, cpus)
        self._running[reference] = student, start

    def _look(self) -> None:
        with contextlib.suppress(RayError):  # of what is shown, and of nothing else
            for name, progress in ray.get(self._board.take.remote(), timeout=_SECONDS_BETWEEN_LOOKS * 10):
                self._tell(name, progress)


def _train(student: Student, board: Any, mark: str, restart: bool, cpus: int) -> Outcome:
    """Runs on a node."""
    if not Path(mark).exists():
        return Outcome(
            name=student.name,
            error=f"{platform.node()} does not see {Path(mark).parent}, which is on the machine that started "
            "the sweep: on a cluster of several nodes output, store and inputs lie on a disk that all "
            "share, or store and inputs are URLs and output alone lies there",
        )
    said = 0.0

    def tell(name: str, progress: StudentProgress) -> None:
        nonlocal said
        if progress.message or time.monotonic() - said >= _SECONDS_BETWEEN_LOOKS:
            said = time.monotonic()
            board.put.remote(name, progress)

    return train_one(student, tell, restart=restart, num_threads=cpus)


def _outcome(task: Any, student: Student) -> Outcome | RayError:
    """How a task ended; an error where its worker was lost."""
    try:
        outcome: Outcome = ray.get(task)
    except RayTaskError as error:
        cause = error.cause if error.cause is not None else error
        return Outcome(
            name=student.name, error=f"it could not be begun on its node: {type(cause).__name__}: {cause}"
        )
    except RayError as error:
        return error
    return outcome


@contextlib.contextmanager
def _mark(students: Sequence[Student]) -> Iterator[Path]:
    """A file beside the students' folders while they are trained: a node that sees it sees the output."""
    folder = Path(students[0].config.output).parent
    mark = folder / f".sweep-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise ExecutorError(f"cannot write to the sweep's output {folder}: {error}") from error
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def _needs(where: Where) -> dict[str, Any]:
    """What each task asks for; refused where it would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = where.gpus
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if not any(node.get("CPU", 0) >= where.cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        lacking = (
            f"a student is to have {where.cpus} CPUs and {gpus:g} GPUs, and no node of the cluster has them "
            f"({found})"
        )
        if where.address == "local":
            raise ExecutorError(f"{lacking}: ask for fewer, or train with --serial")
        _LOG.warning("%s; waiting for one that has", lacking)
    return {"num_cpus": where.cpus, "num_gpus": gpus}


def _lost(student: Student, error: RayError) -> StudentProgress:
    return StudentProgress(
        message=f"its worker was lost ({_because(error)}); it is begun again",
        epoch=0,
        epochs=student.config.training.epochs,
        step=0,
        steps=0,
    )


def _given_up(student: Student, error: RayError) -> Outcome:
    return Outcome(
        name=student.name,
        error=f"its worker was lost {_MOST_STARTS} times, the last time because: {_because(error)}. Out of "
        "memory is the commonest cause: train fewer at once (--workers)",
    )


def _because(error: RayError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
