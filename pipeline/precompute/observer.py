"""The one place that sees all of a run.

It counts, tells who watches, says in the store where the run stands, and leaves its record.
"""

from __future__ import annotations

import logging
import platform
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from softcask.pipeline.config.credentials import redacted
from softcask.pipeline.executors.base import Executor, Failure
from softcask.pipeline.label import TaskReport
from softcask.pipeline.logs import about
from softcask.pipeline.precompute.heartbeat import Heartbeat
from softcask.pipeline.precompute.metering import Metering
from softcask.pipeline.precompute.outcome import failed_units
from softcask.pipeline.precompute.rates import Rates
from softcask.pipeline.precompute.record import Totals, versions
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.precompute.turns import OtherDrivers, Turn
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import BEAT_EVERY, this_process
from softcask.pipeline.teachers.conditions import may_differ
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import SoftcaskError, StoreBusy
from softcask.storage_schemas.runs import Outcome, RunProgress, RunRecord

_LOG = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds after which who watches is told anew, whether or not anything ended."""


class RunObserver(AbstractContextManager["RunObserver"]):
    """Follows one run from its first look at the store to its record.

    Short work leaves no trace before there is something to tell: a run says that it is there when it begins
    to label or to try codecs, and when it indexes for longer than the time between two of its words.

    Attributes:
        run: Its name: when it started, and four letters by chance.
        totals: What it did.
    """

    def __init__(
        self,
        objects: StoreObjects,
        executor: Executor,
        totals: Totals,
        watch: Callable[[Progress], None],
        *,
        other_drivers: OtherDrivers = "cooperate",
        force: bool = False,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            objects: The store.
            executor: What does the work.
            totals: Counts it.
            watch: Told at every step, and each second, from one thread at a time.
            other_drivers: Whether to begin beside others.
            force: Begin in any case.
        """
        self._objects, self._executor, self._watch = objects, executor, watch
        self._started, self._clock = datetime.now(UTC), time.perf_counter()
        stamp = f"{self._started:%Y%m%dT%H%M%S}-{self._started.microsecond:06d}"
        self.run = f"{stamp}-{secrets.token_hex(2)}"
        self.totals = totals
        self._turn = Turn(
            objects=objects, run=self.run, host=platform.node(), other_drivers=other_drivers, force=force
        )
        self._progress = Progress(stage="index", done=0, total=0)
        self._rates = Rates(self._clock)
        self._metering = Metering(self.run, totals)
        self._heartbeat: Heartbeat | None = None
        self._lock = threading.RLock()
        self._process = this_process()
        self._about = ExitStack()
        self._begun = False
        self._live: RunProgress | None = None
        self._told = 0.0
        self._beats, self._last_beat = 0, self._clock
        self._error = ""
        self._recorded = False

    def __enter__(self) -> Self:
        """Look whether others are at work.

        Raises:
            StoreBusy: One is, and it or this one wants the store for itself.
        """
        self._turn.look()
        self._about.enter_context(about(run=self.run))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how it ended; what was done before a run ended early cost device time, too."""
        with self._about:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        outcome = _outcome(error)
        if error is not None and not self.totals.failures:  # of those, the last one says more
            self._error = _first_line(error)
        try:
            if self._did_anything() and not self._recorded:
                self._record(outcome)
            if self._heartbeat is not None:
                self._say(outcome)
        except SoftcaskError as other:
            if error is None:
                _LOG.warning("cannot write the record of run %s: %s", self.run, other)
            else:  # stays what is raised
                error.add_note(f"Nor could a record of this run be written: {other}")

    def step(self, progress: Progress) -> None:
        """Something before labelling went on."""
        with self._lock:
            self._progress = progress
            for stage, seconds in (progress.seconds or {}).items():
                self.totals.trials[stage] += self.totals.held(stage, seconds)
            self._watch(progress)
        if progress.stage != "index" or self.wall_seconds > BEAT_EVERY:
            self.announce()

    def announce(self) -> str | None:
        """Say in the store that this run is there, if it was not said, and see whether it may be.

        Returns:
            Key of what was written; None where the store does not take it.

        Raises:
            StoreBusy: Another driver is at work, and it or this one wants the store for itself.
        """
        if not self._begun:
            self._begin()
        return keys.run_progress(self.run) if self._heartbeat is not None else None

    def rank(self) -> int:
        """How many of the drivers at work on the store came before this one; 0 where it is not known."""
        try:
            return self._turn.rank()
        except SoftcaskError as error:
            _LOG.warning("this run goes on as if it were alone: %s", error)
            return 0

    def label(self, total: int) -> None:
        """Labelling begins: of so many rows, times teachers."""
        with self._lock:
            self._progress = Progress(stage="label", done=0, total=total)
            self._rates = Rates(time.perf_counter())
            self._last_beat = self._clock  # the store hears of it with the next tick
        self.announce()

    def report(self, report: TaskReport) -> None:
        """A task ended."""
        rows = report.task.rows * len(report.task.teachers)
        with self._lock:
            if not self.totals.tasks:  # by now it is connected
                self._metering.meter = self._executor.meter()
            self.totals.add(report)
            self._metering.report(report)
            forward = sum(s for stage, s in report.seconds.items() if stage.startswith("forward:"))
            self._rates.add(time.perf_counter(), rows, forward)
            done = self._progress.done + rows
            self._progress = replace(self._progress, done=done, task=report.task, seconds=report.seconds)
            self._tell(anew=done == self._progress.total)

    def failure(self, failure: Failure) -> None:
        """A task, or what was left of a pool, was given up."""
        with self._lock:
            self.totals.failures.append(failure)
            self._error = _first_line(failure.error)
            self._tell(anew=True)

    def record(self) -> str:
        """Write the record of a run that came to its end; its name."""
        self._record("finished")
        return self.run

    @property
    def wall_seconds(self) -> float:
        """Since it started."""
        return time.perf_counter() - self._clock

    def live(self, outcome: Outcome = "") -> RunProgress:
        """Where it stands."""
        with self._lock:
            now, state, totals = time.perf_counter(), self._executor.state(), self.totals
            rate, forward = self._rates.read(now)
            left = self._progress.total - self._progress.done
            return RunProgress(
                run=self.run,
                started=self._started.isoformat(),
                updated=datetime.now(UTC).isoformat(),
                beat=self._beats,
                interval=BEAT_EVERY,
                host=platform.node(),
                process=self._process,
                executor=self._executor.name,
                other_drivers=self._turn.other_drivers,
                stage=self._progress.stage,
                outcome=outcome,
                error=self._error,
                wall_seconds=self.wall_seconds,
                done=self._progress.done,
                total=self._progress.total,
                units=dict(totals.units),
                rows=dict(totals.rows),
                device_seconds=dict(totals.device_seconds),
                repeated=dict(totals.repeated),
                stage_seconds=dict(totals.stage_seconds),
                bytes=totals.bytes,
                rows_per_second=rate,
                busy=forward / state.workers if state.workers else 0.0,
                seconds_left=left / rate if rate else None,
                workers=state.workers,
                starting=state.starting,
                in_flight=state.in_flight,
                retries=state.retries,
                failed=state.given_up,
                missing="; ".join(state.waiting),
            )

    def _begin(self) -> None:
        self._begun = True
        try:
            self._say()
        except SoftcaskError as error:
            if self._turn.other_drivers == "refuse":
                raise
            _LOG.warning("this run goes on, and nobody will see where it stands: %s", error)
            return
        self._heartbeat = Heartbeat(self._beat, every=_TICK)
        self._turn.take()
        self._heartbeat.start()

    def _beat(self) -> None:
        with self._lock:
            self._tell(anew=True)
        if time.perf_counter() - self._last_beat >= BEAT_EVERY:
            self._say()

    def _tell(self, *, anew: bool = False) -> None:
        """Tell who watches; figures that would cost more than a task are worked out now and then."""
        now = time.perf_counter()
        if anew or self._live is None or now - self._told > _TICK:
            self._live, self._told = self.live(), now
            self._metering.standing(self._live)
        self._watch(replace(self._progress, live=self._live))

    def _say(self, outcome: Outcome = "") -> None:
        with self._lock:
            live = self.live(outcome)
            self._beats, self._last_beat = self._beats + 1, time.perf_counter()
        self._objects.replace(keys.run_progress(self.run), live.to_bytes())

    def _did_anything(self) -> bool:
        return bool(self.totals.tasks) or any(each.task is not None for each in self.totals.failures)

    def _record(self, outcome: Outcome) -> None:
        self._recorded = True
        totals = self.totals
        stages = {stage: s for stage, s in totals.stage_seconds.items() if stage != "forward"}
        record = RunRecord(
            run=self.run,
            started=self._started.isoformat(),
            wall_seconds=self.wall_seconds,
            executor=self._executor.name,
            workers=self._executor.workers,
            host=platform.node(),
            versions=versions(),
            units=dict(totals.units),
            rows=dict(totals.rows),
            device_seconds=dict(totals.device_seconds),
            stage_seconds=stages,
            devices=tuple(sorted(totals.devices)),
            outcome=outcome,
            error=self._error,
            bytes=totals.bytes,
            failed=sum(each.task is not None for each in totals.failures),
            given_up=failed_units(totals.failures),
            retries=self._executor.state().retries,
            repeated=dict(totals.repeated),
            trials=dict(totals.trials),
            gpus=totals.gpus,
            conditions={name: tuple(found) for name, found in totals.conditions.items()},
            may_differ={name: why for name, found in totals.conditions.items() if (why := may_differ(found))},
        )
        self._objects.publish(keys.run_record(self.run), record.to_bytes())


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return "finished"
    if isinstance(error, StoreBusy):
        return "refused"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _first_line(error: BaseException) -> str:
    return redacted(next(iter(str(error).strip().splitlines()), type(error).__name__))
