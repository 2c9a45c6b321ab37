"""One student's training is alone in its folder, whoever else begins it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from pathlib import Path

from tests.jobs.conftest import Project
from typer.testing import Result

from softcask.jobs.sweeping.config import load_sweep
from softcask.jobs.sweeping.students import plan_students
from softcask.jobs.sweeping.training import Outcome, train_one
from softcask.pipeline.student.training.results import StudentProgress


def test_a_student_that_another_process_trains_is_waited_for(
    softcask: Callable[..., Result], project: Project, student: Path
) -> None:
    softcask("precompute", project.run)
    planned = plan_students(load_sweep(student, grid=["training.seed=0,1"]))[0]
    output = Path(planned.config.output)
    output.mkdir(parents=True)
    waits = threading.Event()
    outcomes: list[Outcome] = []

    def tell(name: str, progress: StudentProgress) -> None:
        if progress.message and "another process is training it" in progress.message:
            waits.set()

    with (output / ".training").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: outcomes.append(train_one(planned, tell)))
        thread.start()
        assert waits.wait(120) and not outcomes
        assert not (output / "checkpoint.safetensors").exists()
    thread.join(120)
    assert outcomes[0].error is None and outcomes[0].result is not None
    assert (output / "model.safetensors").is_file()
