"""Metrics through Ray: its agents export them for Prometheus, with `ray_` before each name."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from softcask.pipeline.executors.metrics import METRICS, Metric


class RayMeter:
    """Hands metrics to the Ray that this process is connected to; without one, nobody is told."""

    def __init__(self) -> None:
        """To be made once connected."""
        self._made = {metric.name: _made(metric) for metric in METRICS}

    def tell(self, metric: Metric, value: float, **tags: str) -> None:
        """See `Meter.tell`."""
        if not ray.is_initialized() or (metric.kind == "counter" and value <= 0):
            return
        made = self._made[metric.name]
        match metric.kind:
            case "counter":
                made.inc(value, tags=tags)
            case "gauge":
                made.set(value, tags=tags)
            case "histogram":
                made.observe(value, tags=tags)


def _made(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.says, list(metric.boundaries), metric.tags)
    return (Counter if metric.kind == "counter" else Gauge)(metric.name, metric.says, metric.tags)
