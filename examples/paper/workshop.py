"""Where runs are carried out: what is there is kept, what is missing is made, teachers and stores first.

Every student goes the whole way of a user of softcask: a net of the user's own, `precompute` into a store,
`train` from the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import softcask
from examples.mnist.models import mlp
from examples.paper.rows import HELD_OUT, Mnist
from examples.paper.runs import (
    BiasRun,
    Record,
    Run,
    Store,
    StudentRun,
    TeacherRun,
    TogetherRun,
    described,
    label,
    read_record,
)
from examples.paper.teachers import logits_of, train
from softcask.pipeline.config.toml import read_tables
from softcask.pipeline.student.bias import fit_shift
from softcask.pipeline.student.training.loop import CHECKPOINT, MODEL
from softcask.pipeline.student.training.process import Clock
from softcask.pipeline.student.training.results import StudentProgress
from softcask.pipeline.weights import file_digest
from softcask.storage_schemas.errors import CheckpointError
from softcask.storage_schemas.fingerprint import digest

HERE = Path(__file__).resolve().parent
RUN_FILE = HERE / "run.toml"
STUDENT_FILE = HERE / "student.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Folders to work in.

    Attributes:
        mnist: The rows.
        results: Of records, which are committed.
        cache: Of nets and stores, which are not.
    """

    mnist: Mnist
    results: Path
    cache: Path

    def record(self, run: Run) -> Record | None:
        """What came of a run; None where it is still to be done."""
        return read_record(self.results, run)

    def carry_out(self, run: Run) -> Record:
        """The record of a run, which is done first where there is none."""
        return self.record(run) or self._do(run)

    def _do(self, run: Run) -> Record:
        torch.set_num_threads(1)
        match run:
            case TeacherRun():
                record = self._teach(run)
            case StudentRun():
                record = self._learn(run)
            case TogetherRun():
                record = self._combine(run)
            case BiasRun():
                record = self._correct(run)
        record.save(self.results / f"{label(run)}.json")
        (self._folder(run) / CHECKPOINT).unlink(missing_ok=True)
        return record

    def _teach(self, run: TeacherRun) -> Record:
        print(f"training {label(run)}", flush=True)
        folder = self._folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        trained = train(run.recipe, self.mnist.digits(run.rows), folder / CHECKPOINT)
        save_file(trained.net.state_dict(), folder / MODEL)
        logits_NC = self._logits(run, run.judged_on)
        return self._judged(run, logits_NC, trained.seconds, trained.cpu_seconds, self._digests((run,)))

    def _learn(self, run: StudentRun) -> Record:
        uri = self._label(run.store)
        print(f"training {label(run)}", flush=True)
        rows = self.cache / "rows"
        overrides: dict[str, Any] = run.settings() | {
            "store": uri,
            "output": str(self._folder(run)),
            "transfer_set": self.mnist.source(run.rows, rows, labelled=run.loss == "hard"),
            "evaluation": self.mnist.source(run.judged_on, rows, labelled=True),
        }
        config = softcask.load_student(STUDENT_FILE, overrides)
        try:
            result = softcask.train_student(config, progress=_tell)
        except CheckpointError:  # it was begun from teachers that have been trained anew since
            result = softcask.train_student(config, progress=_tell, restart=True)
        logits_NC = self._logits(run, run.judged_on)
        return self._judged(
            run, logits_NC, result.seconds, result.cpu_seconds, self._digests(run.store.teachers)
        )

    def _combine(self, run: TogetherRun) -> Record:
        teachers = run.store.teachers
        for teacher in teachers:
            self._ensure_net(teacher)
        clock = Clock()
        logits_MNC = [self._logits(teacher, teacher.judged_on) for teacher in teachers]
        p_NC = np.mean([torch.from_numpy(logits_NC).softmax(1).numpy() for logits_NC in logits_MNC], axis=0)
        return self._judged(run, p_NC, *clock.read(), self._digests(teachers))

    def _correct(self, run: BiasRun) -> Record:
        self._ensure_net(run.student)
        clock = Clock()
        held_out_NC = self._logits(run.student, HELD_OUT)
        offset = fit_shift(held_out_NC, self.mnist.digits(HELD_OUT).labels_N, run.classes)
        scores_NC = self._logits(run.student, run.judged_on)
        scores_NC[:, list(run.classes)] += offset
        teachers = self._digests(run.student.store.teachers)
        return self._judged(run, scores_NC, *clock.read(), teachers, offset=offset)

    def _label(self, store: Store) -> str:
        """A store with its teachers' logits of all training rows; labelled once."""
        for teacher in store.teachers:
            self._ensure_net(teacher)
        (template,) = read_tables(RUN_FILE)["teachers"]
        teachers = [
            template
            | {
                "name": label(teacher),
                "weights": str(self._folder(teacher) / MODEL),
                "kwargs": {"hidden_sizes": list(teacher.recipe.hidden_sizes)},
            }
            for teacher in store.teachers
        ]
        name = f"{store.name}-{_short(self._digests(store.teachers))}"
        overrides = {
            "store.uri": str(self.cache / "stores" / name),
            "transfer_set": self.mnist.source("all", self.cache / "rows", labelled=False),
            "teachers": teachers,
        }
        summary = softcask.precompute(softcask.load_run(RUN_FILE, overrides))
        if passes := sum(teacher.new_rows > 0 for teacher in summary.teachers.values()):
            told = f"{summary.rows:,} rows, {passes} teacher passes, {summary.wall_seconds:.1f} s"
            print(f"labelled {told}", flush=True)
        return summary.store

    def _ensure_net(self, run: TeacherRun | StudentRun) -> None:
        """Train a net anew where only its record has come to this machine."""
        if self.record(run) is None or not (self._folder(run) / MODEL).exists():
            self._do(run)

    def _logits(self, run: TeacherRun | StudentRun, part: str) -> NDArray[np.float32]:
        """Logits `[N, C]` of a net that is there."""
        net = mlp(run.hidden_sizes if isinstance(run, StudentRun) else run.recipe.hidden_sizes)
        net.load_state_dict(load_file(self._folder(run) / MODEL))
        logits_NC: NDArray[np.float32] = logits_of(net, self.mnist.digits(part)).numpy()
        return logits_NC

    def _judged(
        self,
        run: Run,
        scores_NC: NDArray[np.float32],
        seconds: float,
        cpu_seconds: float,
        teachers: dict[str, str],
        offset: float | None = None,
    ) -> Record:
        labels_N = self.mnist.digits(run.judged_on).labels_N
        wrong_C = np.bincount(labels_N[scores_NC.argmax(1) != labels_N], minlength=scores_NC.shape[1])
        return Record(
            run=described(run),
            errors=int(wrong_C.sum()),
            rows=len(labels_N),
            wrong_by_class=wrong_C.tolist(),
            seconds=round(seconds, 1),
            cpu_seconds=round(cpu_seconds, 1),
            teachers=teachers,
            versions={"softcask": softcask.__version__, "torch": torch.__version__},
            offset=offset,
        )

    def _digests(self, teachers: tuple[TeacherRun, ...]) -> dict[str, str]:
        return {label(teacher): file_digest(str(self._folder(teacher) / MODEL)) for teacher in teachers}

    def _folder(self, run: Run) -> Path:
        return self.cache / "nets" / f"{label(run)}-{_short(described(run))}"


def _tell(progress: StudentProgress) -> None:
    """A line every ten epochs."""
    done = progress.epoch + 1
    if done % 10 == 0 and progress.step * progress.epochs == done * progress.steps:
        print(f"  epoch {done} of {progress.epochs}: loss {progress.loss:.4f}", flush=True)


def _short(value: Any) -> str:
    return digest(value).removeprefix("sha256:")[:8]
