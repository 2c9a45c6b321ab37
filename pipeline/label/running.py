"""Teachers over the batches of a unit: logits, checked and encoded."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.label.reading import refuse_if_closed
from softcask.pipeline.label.work import Work
from softcask.pipeline.store.writing.encoding import EncodedUnit, UnitEncoder
from softcask.pipeline.teachers.base import StagedTeacher
from softcask.pipeline.teachers.checks import check_logits
from softcask.pipeline.teachers.fitting import FittedTeacher
from softcask.storage_schemas.absent import Absent, without_absent
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.manifest import TeacherManifest

if TYPE_CHECKING:
    import torch

    from softcask.pipeline.device_codecs.base import DeviceCodec
    from softcask.pipeline.label.device import DeviceEncoder, Mark

Check = Callable[[NDArray[np.float32], pa.Array], None]
"""Raises for logits `[B, C]` of rows with these ids that cannot be stored."""


class UnitRun(Protocol):
    """One teacher over one unit."""

    def add(self, staged_B: Any, sample_ids: pa.Array) -> None:
        """Run the next batch."""

    def finish(self) -> EncodedUnit:
        """All batches as one."""


@dataclass(slots=True, kw_only=True)
class HostRun:
    """Logits come to the host, and are encoded there."""

    teacher: FittedTeacher
    encoder: UnitEncoder
    check: Check
    absent: Absent
    seconds: defaultdict[str, float]

    def add(self, staged_B: Any, sample_ids: pa.Array) -> None:
        """See `UnitRun.add`."""
        for rows, logits_BC in self.teacher.in_pieces(staged_B, self._logits):
            self.check(logits_BC, sample_ids[rows])
            started = time.perf_counter()
            self.encoder.add(without_absent(logits_BC, self.absent))
            self.seconds["encode"] += time.perf_counter() - started

    def finish(self) -> EncodedUnit:
        """See `UnitRun.finish`."""
        return self.encoder.finish()

    def _logits(self, staged_B: Any) -> NDArray[np.float32]:
        started = time.perf_counter()
        teacher = self.teacher.teacher
        if isinstance(teacher, StagedTeacher):
            logits_BC: NDArray[np.float32] = teacher.launch(staged_B).cpu().numpy()
        else:
            logits_BC = teacher.logits(staged_B)
        self.seconds[f"forward:{teacher.name}"] += time.perf_counter() - started
        return logits_BC


@dataclass(slots=True)
class _Launched:
    """A piece that a device may still be at work on."""

    rows: slice
    logits_BC: torch.Tensor
    sample_ids: pa.Array
    marks: tuple[Mark, Mark, Mark]


@dataclass(slots=True, kw_only=True)
class DeviceRun:
    """Logits are encoded where they are; whether those of a piece are finite is asked when the next runs."""

    teacher: FittedTeacher
    staged: StagedTeacher
    encoder: DeviceEncoder
    num_classes: int
    check: Check
    seconds: defaultdict[str, float]
    mark: Callable[[torch.device], Mark]
    waiting: _Launched | None = None

    def add(self, staged_B: Any, sample_ids: pa.Array) -> None:
        """See `UnitRun.add`."""
        for rows, launched in self.teacher.in_pieces(staged_B, self._launch):
            launched.sample_ids = sample_ids[rows]
            before, self.waiting = self.waiting, launched
            self._settle(before)

    def finish(self) -> EncodedUnit:
        """See `UnitRun.finish`."""
        self._settle(self.waiting)
        return self.encoder.finish()

    def _launch(self, staged_B: Any) -> _Launched:
        device = self.staged.device
        began = self.mark(device)
        logits_BC = self.staged.launch(staged_B)
        computed = self.mark(device)
        if logits_BC.shape[1] != self.num_classes:
            self.check(logits_BC.cpu().numpy(), staged_B)
        rows = self.encoder.add(logits_BC)
        return _Launched(rows, logits_BC, None, (began, computed, self.mark(device)))

    def _settle(self, launched: _Launched | None) -> None:
        if launched is None:
            return
        began, computed, encoded = launched.marks
        encoded.wait()
        self.seconds[f"forward:{self.teacher.name}"] += computed.since(began)
        self.seconds["encode"] += encoded.since(computed)
        if not self.encoder.usable(launched.rows):
            self.check(launched.logits_BC.cpu().numpy(), launched.sample_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRunner:
    """Runs the co-resident teachers of one labeller, in a thread of its own.

    Attributes:
        teachers: By name.
        manifests: By name.
        codecs: By name.
        closed: Set when what is not yet computed is to be given up.
    """

    teachers: Mapping[str, FittedTeacher]
    manifests: Mapping[str, TeacherManifest]
    codecs: Mapping[str, Codec]
    closed: threading.Event
    _twins: dict[str, DeviceCodec | None] = field(default_factory=dict)

    def run(self, work: Work) -> dict[str, EncodedUnit]:
        """What each teacher says of the unit's readable rows, encoded.

        Raises:
            SoftcaskError: A batch could not be read, or a teacher's logits cannot be stored.
        """
        ids = work.rows.readable_ids
        runs: dict[str, UnitRun] = {}
        first = 0
        for batch in work.read():
            refuse_if_closed(self.closed, work)
            runs = runs or self._runs(work, len(ids))
            for name, run in runs.items():
                run.add(batch.staged[name], ids[first : first + batch.count])
            first += batch.count
        # A unit whose rows are all quarantined is committed too.
        runs = runs or self._runs(work, 0)
        return {name: self._with_origin(run.finish(), self.teachers[name]) for name, run in runs.items()}

    def _runs(self, work: Work, rows: int) -> dict[str, UnitRun]:
        return {name: self._run(work, name, rows) for name in work.teachers}

    def _run(self, work: Work, name: str, rows: int) -> UnitRun:
        fitted, codec, manifest = self.teachers[name], self.codecs[name], self.manifests[name]
        classes, absent, teacher, encode = manifest.num_classes, manifest.absent_classes, fitted.teacher, None

        def check(logits_BC: NDArray[np.float32], sample_ids: pa.Array) -> None:
            check_logits(
                logits_BC,
                num_classes=classes,
                teacher=name,
                unit=work.task.unit,
                sample_ids=sample_ids,
                absent=absent,
            )

        if isinstance(teacher, StagedTeacher):
            from softcask.pipeline.label import device  # torch is there: the teacher is one of its

            device.take_own_stream(teacher.device)
            if name not in self._twins:
                self._twins[name] = device.twin_of(codec, teacher.device)
            if (twin := self._twins[name]) is not None:
                return DeviceRun(
                    teacher=fitted,
                    staged=teacher,
                    encoder=device.DeviceEncoder(codec, twin, rows=rows, num_classes=classes, absent=absent),
                    num_classes=classes,
                    check=check,
                    seconds=work.seconds,
                    mark=device.mark,
                )
            encode = device.encode_on_host(codec)
        encoder = UnitEncoder(codec, rows=rows, num_classes=manifest.stored_classes, encode=encode)
        return HostRun(teacher=fitted, encoder=encoder, check=check, absent=absent, seconds=work.seconds)

    @staticmethod
    def _with_origin(unit: EncodedUnit, fitted: FittedTeacher) -> EncodedUnit:
        teacher = fitted.teacher
        return replace(
            unit,
            batch_size=fitted.rows if fitted.is_auto else None,
            may_differ=teacher.may_differ if isinstance(teacher, StagedTeacher) else (),
        )
