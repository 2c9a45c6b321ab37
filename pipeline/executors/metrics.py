"""What a run tells a monitoring system, by name. Knows nothing of where it goes: see `Executor.meter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

_UNIT_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One quantity.

    Attributes:
        name: Its name, without what a monitoring system puts around it.
        kind: `counter`: only grows; `gauge`: as it stands; `histogram`: how often it was how large.
        says: What it is.
        tags: By what it is told apart.
        boundaries: Of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    tags: tuple[str, ...]
    boundaries: tuple[float, ...] = ()


ROWS = Metric(
    name="softcask_rows",
    kind="counter",
    says="Rows labelled and committed.",
    tags=("run", "teacher", "node"),
)
UNITS = Metric(
    name="softcask_units",
    kind="counter",
    says="Units committed.",
    tags=("run", "teacher", "node"),
)
REPEATED = Metric(
    name="softcask_repeated_units",
    kind="counter",
    says="Units that another driver had committed when they were done.",
    tags=("run", "teacher", "node"),
)
BYTES = Metric(
    name="softcask_bytes",
    kind="counter",
    says="Bytes of the objects written.",
    tags=("run", "node"),
)
DEVICE_SECONDS = Metric(
    name="softcask_device_seconds",
    kind="counter",
    says="Seconds that forward passes held devices, times the GPUs held.",
    tags=("run", "teacher", "node"),
)
STAGE_SECONDS = Metric(
    name="softcask_stage_seconds",
    kind="counter",
    says="Seconds of workers' threads by stage: read, forward, encode, write.",
    tags=("run", "stage", "node"),
)
UNIT_SECONDS = Metric(
    name="softcask_unit_forward_seconds",
    kind="histogram",
    says="Seconds of forward passes that a unit took.",
    tags=("run", "teacher", "node"),
    boundaries=_UNIT_SECONDS,
)
RETRIES = Metric(
    name="softcask_retries",
    kind="counter",
    says="Tasks run again because their worker was lost or failed.",
    tags=("run",),
)
FAILURES = Metric(name="softcask_failures", kind="counter", says="Tasks given up.", tags=("run",))
IN_FLIGHT = Metric(name="softcask_in_flight", kind="gauge", says="Tasks that workers have.", tags=("run",))
WORKERS = Metric(name="softcask_workers", kind="gauge", says="Workers that are ready.", tags=("run",))
STARTING = Metric(
    name="softcask_starting_workers", kind="gauge", says="Workers that wait for room or load.", tags=("run",)
)
WAITING = Metric(
    name="softcask_missing_capacity",
    kind="gauge",
    says="1 while the run waits for what the cluster lacks.",
    tags=("run",),
)
ROWS_LEFT = Metric(
    name="softcask_rows_left", kind="gauge", says="Rows, times teachers, still to be labelled.", tags=("run",)
)

METRICS: tuple[Metric, ...] = (
    ROWS,
    UNITS,
    REPEATED,
    BYTES,
    DEVICE_SECONDS,
    STAGE_SECONDS,
    UNIT_SECONDS,
    RETRIES,
    FAILURES,
    IN_FLIGHT,
    WORKERS,
    STARTING,
    WAITING,
    ROWS_LEFT,
)


class Meter(Protocol):
    """Where metrics go."""

    def tell(self, metric: Metric, value: float, **tags: str) -> None:
        """Add to a counter, set a gauge, or count one value into a histogram.

        Args:
            metric: Which.
            value: By how much, to what, or how large.
            tags: A value for each of its tags.
        """


class NoMeter:
    """Where nobody measures."""

    def tell(self, metric: Metric, value: float, **tags: str) -> None:
        """Nothing is done."""
