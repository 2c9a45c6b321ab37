"""A run's figures as a person reads them: rates, times, shares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from softcask.jobs import console

if TYPE_CHECKING:
    from softcask.storage_schemas.runs import RunProgress

_STAGES = ("read", "forward", "encode", "write")


def duration(seconds: float | None) -> str:
    """`41 s`, `3:07`, `2:03:07`, `3 d 02:03`; a dash where nothing is known."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"


def shares(stage_seconds: Mapping[str, float]) -> str:
    """How the workers' time falls to reading, forward passes, encoding and writing, the largest first."""
    known = {stage: stage_seconds.get(stage, 0.0) for stage in _STAGES}
    total = sum(known.values())
    if not total:
        return ""
    order = sorted(known, key=lambda stage: -known[stage])
    return ", ".join(f"{stage} {known[stage] / total:.0%}" for stage in order)


def rate(live: RunProgress) -> str:
    """`4,210 rows/s`, and a worker where there are several; empty where nothing is known yet."""
    if not live.rows_per_second:
        return ""
    each = f", {live.rows_per_second / live.workers:,.0f} a device" if live.workers > 1 else ""
    return f"{live.rows_per_second:,.0f} rows/s{each}"


def work(live: RunProgress) -> str:
    """Who is at work on what, what went wrong, and what takes the time."""
    parts = [console.many(live.workers, "worker")]
    parts += [f"{live.starting:,} starting"] if live.starting else []
    parts += [f"{live.in_flight:,} in flight"] if live.in_flight else []
    parts += [console.many(live.retries, "retry").replace("retrys", "retries")] if live.retries else []
    parts += [f"{live.failed:,} given up"] if live.failed else []
    parts += [console.size(live.bytes)] if live.bytes else []
    parts += [f"devices busy {min(live.busy, 1.0):.0%}"] if live.busy else []
    parts += [shared] if (shared := shares(live.stage_seconds)) else []
    return ", ".join(parts)


def at(moment: datetime) -> str:
    """A time on this machine's clock."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
