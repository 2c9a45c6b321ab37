"""Run a teacher on a sample of the transfer set, where teachers run, and try codecs on what it gives."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.codec_choice.choose import choose
from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.codec_choice.trials import Sample, run_trials
from softcask.pipeline.factories import add_to_path
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.codecs import publish_codec
from softcask.pipeline.teachers.base import HasOutputLayer, Teacher, TeacherOptions
from softcask.pipeline.teachers.checks import check_logits
from softcask.pipeline.teachers.fitting import FittedTeacher
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.storage_schemas.absent import present_classes, without_absent
from softcask.storage_schemas.errors import ConfigError, TransferSetError
from softcask.storage_schemas.manifest import CodecSpec, Fidelity

_SAMPLE_BYTES = 1 << 30
_HELD_OUT_EVERY, _MOST_HELD_OUT = 8, 512
_FEWEST_ROWS = 2
_EXPLAINED_ROWS, _EXPLAINED = 16, 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTask:
    """One teacher to try.

    Attributes:
        request: A resolved request.
        publish: Whether to put what the chosen codec keeps once into the store; if not, codecs that are too
            large are tried, too, and a budget that cannot be met is told in the report.
    """

    request: CodecRequest
    publish: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReport:
    """What was found.

    Attributes:
        teacher: Its name.
        trials: What each codec did, JSON-able; see `Trial.to_dict`.
        rows: Rows the teacher was run on.
        seconds_a_row: Time of its forward pass.
        reason: Which one was chosen and why, or why none could be.
        codec: The codec that was chosen, with what is in the store; None where nothing was to be published.
        expected: How well that does on held-out rows.
        row_bytes: Its bytes a row.
    """

    teacher: str
    trials: tuple[dict[str, Any], ...]
    rows: int
    seconds_a_row: float
    reason: str
    chosen: str = ""
    kept_by: str = ""
    codec: CodecSpec | None = None
    expected: tuple[Fidelity, ...] = ()
    row_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecipe:
    """All that a process needs to try a teacher's codecs; picklable.

    Attributes:
        store_uri: Where a chosen codec's arrays go.
        transfer_set: Where rows come from.
        teacher: Whom to run.
        num_classes: Logits a row.
        python_path: Folders that factories are imported from.
    """

    store_uri: str
    transfer_set: SourceOptions
    teacher: TeacherOptions
    num_classes: int
    python_path: tuple[str, ...] = ()

    def build(self) -> TrialWorker:
        """Load the teacher in this process.

        Raises:
            SoftcaskError: The teacher or the transfer set cannot be used.
        """
        add_to_path(self.python_path)
        return TrialWorker(self, self.transfer_set.open())


@dataclass(slots=True)
class TrialWorker:
    """Runs trials in a thread of its own: torch keeps its settings by thread."""

    recipe: TrialRecipe
    source: TransferSet
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "trial"))

    def submit(self, task: TrialTask) -> Future[TrialReport]:
        """Start a trial."""
        return self._thread.submit(self._run, task)

    def close(self) -> None:
        """Wait for the trial under way."""
        self._thread.shutdown()

    def _run(self, task: TrialTask) -> TrialReport:
        name, objects = self.recipe.teacher.name, StoreObjects.at(self.recipe.store_uri)
        teacher = self.recipe.teacher.load()
        logits_RC, seconds = self._logits(
            FittedTeacher(teacher, self.recipe.teacher.batch_size), task.request.rows
        )
        layer = teacher.output_layer() if isinstance(teacher, HasOutputLayer) else None
        if layer is not None and len(layer) == self.recipe.num_classes:
            layer = layer[present_classes(len(layer), self.recipe.teacher.absent_classes)]
        trials = list(run_trials(task.request, split(logits_RC, layer), every=not task.publish))
        report = TrialReport(
            teacher=name,
            trials=tuple(trial.to_dict() for trial in trials),
            rows=len(logits_RC),
            seconds_a_row=seconds / len(logits_RC),
            reason="",
        )
        try:
            best, reason = choose(task.request, trials, name)
        except ConfigError as error:
            if task.publish:
                raise
            return replace(report, reason=str(error))
        codec = publish_codec(objects, name, best.codec) if task.publish else None
        return replace(
            report,
            reason=reason,
            chosen=best.label,
            kept_by=best.codec.name,
            codec=codec,
            expected=best.expected(),
            row_bytes=best.row_bytes,
        )

    def _logits(self, teacher: Teacher, rows: int) -> tuple[NDArray[np.float32], float]:
        """Stored logits `[R, K]` of rows spread over the set, and the seconds of the forward passes."""
        most = min(len(self.source), rows, max(_FEWEST_ROWS, _SAMPLE_BYTES // (4 * self.recipe.num_classes)))
        positions_R = np.unique(np.linspace(0, len(self.source) - 1, most).astype(np.int64))
        parts, seconds = [], 0.0
        for first in range(0, len(positions_R), batch_size := self.recipe.teacher.planned_batch_size):
            batch = self.source.read(positions_B := positions_R[first:][:batch_size])
            if readable := [place for place in range(len(positions_B)) if place not in batch.problems]:
                started = time.perf_counter()
                logits_BC = teacher.logits(batch.inputs_B[readable])
                seconds += time.perf_counter() - started
                parts.append(self._checked(logits_BC, positions_B[readable]))
        if (found := sum(len(part) for part in parts)) < _FEWEST_ROWS:
            raise TransferSetError(
                f"{found} of {len(positions_R)} sampled rows could be read, expected at least "
                f"{_FEWEST_ROWS}, to try codecs on teacher {self.recipe.teacher.name!r}; look at the rows"
            )
        return np.concatenate(parts), seconds

    def _checked(self, logits_BC: NDArray[np.float32], positions_B: NDArray[np.int64]) -> NDArray[np.float32]:
        check_logits(
            logits_BC,
            num_classes=self.recipe.num_classes,
            teacher=self.recipe.teacher.name,
            unit="(sample)",
            sample_ids=[f"row {position}" for position in positions_B],
            absent=self.recipe.teacher.absent_classes,
        )
        return without_absent(logits_BC, self.recipe.teacher.absent_classes)


def split(logits_RC: NDArray[np.float32], layer_Cd: NDArray[np.float32] | None = None) -> Sample:
    """Rows to fit on and rows to judge by, both spread over the whole; the layer, if the logits are its."""
    places_R = np.arange(len(logits_RC))
    every = max(_HELD_OUT_EVERY, len(logits_RC) // _MOST_HELD_OUT)
    held_out = places_R % every == every - 1 if len(logits_RC) >= every else places_R % 2 == 1
    explained = layer_Cd is not None and _explains(layer_Cd, logits_RC)
    return Sample(
        calibration_RC=logits_RC[~held_out],
        held_out_RC=logits_RC[held_out],
        output_layer=layer_Cd if explained else None,
    )


def _explains(layer_Cd: NDArray[np.float32], logits_RC: NDArray[np.float32]) -> bool:
    """Whether logits differ from each other, up to a constant a row, only along a layer's columns."""
    some_RC = logits_RC[:: max(1, len(logits_RC) // _EXPLAINED_ROWS)].astype(np.float64)
    if layer_Cd.shape[0] != some_RC.shape[1] or len(some_RC) < _FEWEST_ROWS:
        return False
    apart_RC = some_RC[1:] - some_RC[:1]  # without the bias
    apart_RC -= apart_RC.mean(axis=1, keepdims=True)
    columns_Cd = layer_Cd - layer_Cd.mean(axis=0)
    columns_Cd, _ = np.linalg.qr(columns_Cd.astype(np.float64))
    left_RC = apart_RC - apart_RC @ columns_Cd @ columns_Cd.T
    return bool(np.square(left_RC).sum() <= _EXPLAINED**2 * np.square(apart_RC).sum())
