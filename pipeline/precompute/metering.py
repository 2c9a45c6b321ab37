"""A run's reports and standing, as metrics."""

from __future__ import annotations

from softcask.pipeline.executors import metrics
from softcask.pipeline.executors.metrics import Meter, NoMeter
from softcask.pipeline.label import TaskReport
from softcask.pipeline.precompute.record import Totals
from softcask.storage_schemas.runs import RunProgress


class Metering:
    """Tells a meter of one run."""

    def __init__(self, run: str, totals: Totals) -> None:
        """Nobody is told before `meter` is set.

        Args:
            run: Its name.
            totals: Knows how many devices a teacher holds.
        """
        self.meter: Meter = NoMeter()
        self._run, self._totals = run, totals
        self._retries = self._failures = 0

    def report(self, report: TaskReport) -> None:
        """A task ended."""
        tell, where = self.meter.tell, {"run": self._run, "node": report.node}
        for teacher, rows in report.rows.items():
            tell(metrics.ROWS, rows, teacher=teacher, **where)
            tell(metrics.UNITS, 1, teacher=teacher, **where)
        for teacher in report.repeated:
            tell(metrics.REPEATED, 1, teacher=teacher, **where)
        tell(metrics.BYTES, report.bytes, **where)
        for name, seconds in report.seconds.items():
            stage, _, teacher = name.partition(":")
            tell(metrics.STAGE_SECONDS, seconds, stage=stage, **where)
            if teacher:
                held = self._totals.held(teacher, seconds)
                tell(metrics.DEVICE_SECONDS, held, teacher=teacher, **where)
                tell(metrics.UNIT_SECONDS, seconds, teacher=teacher, **where)

    def standing(self, live: RunProgress) -> None:
        """Where the run stands."""
        tell, run = self.meter.tell, self._run
        tell(metrics.RETRIES, live.retries - self._retries, run=run)
        tell(metrics.FAILURES, live.failed - self._failures, run=run)
        self._retries, self._failures = live.retries, live.failed
        tell(metrics.IN_FLIGHT, live.in_flight, run=run)
        tell(metrics.WORKERS, live.workers, run=run)
        tell(metrics.STARTING, live.starting, run=run)
        tell(metrics.WAITING, float(bool(live.missing)), run=run)
        tell(metrics.ROWS_LEFT, live.total - live.done, run=run)
