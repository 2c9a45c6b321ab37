"""Which runs a store knows of, how each stands, and whether its driver still lives.

What a driver says of itself may be a minute old, and be said by another clock: a run counts as at work while
it said something within `STALE_AFTER`, unless its process is known to be gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import SoftcaskError
from softcask.storage_schemas.runs import RunProgress, RunRecord

BEAT_EVERY = 10.0
"""Seconds after which a driver says anew where it stands."""

STALE_AFTER = 60.0
"""Seconds without a word after which a driver is taken for dead."""

_THREADS = 8

State = Literal["at work", "silent", "gone", "finished", "failed", "interrupted", "refused", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as a store tells of it.

    Attributes:
        name: Its name.
        progress: What its driver said last; None of a run of before there was such a thing.
        record: What it measured; None until it has ended, where it ended before anything was done, and where
            `progress` says all that was asked for.
        problem: Why neither can be read.
    """

    name: str
    progress: RunProgress | None = None
    record: RunRecord | None = None
    problem: str = ""

    def state(self, now: datetime) -> State:
        """How it stands; `silent`: no word for too long; `gone`: its process has ended without one."""
        if self.record is not None:
            return self.record.outcome or "finished"
        return "unreadable" if self.progress is None else state_of(self.progress, now)


def state_of(progress: RunProgress, now: datetime) -> State:
    """How the run of `progress` stands; see `Run.state`."""
    if progress.outcome:
        return progress.outcome
    if is_gone(progress.process):
        return "gone"
    # A clock ahead of this one makes ages negative; one that is far off says nothing.
    return "at work" if abs(age_of(progress, now)) < STALE_AFTER else "silent"


def age_of(progress: RunProgress, now: datetime) -> float:
    """Seconds since it was said, between the driver's clock and this machine's."""
    return (now - moment(progress.updated)).total_seconds()


def moment(text: str) -> datetime:
    """A time of a document; of one that holds none, the beginning of time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def run_names(objects: StoreObjects) -> list[str]:
    """Names of all runs, oldest first: one listing."""
    return [name for name in objects.names(keys.RUNS) if keys.is_run(name)]


def read_progress(objects: StoreObjects, run: str) -> RunProgress | None:
    """What a run's driver said last; None where it said nothing.

    Raises:
        CorruptObject: It is damaged.
    """
    key = keys.run_progress(run)
    data = objects.read_if_present(key)
    return RunProgress.from_bytes(data, key) if data is not None else None


def read_record(objects: StoreObjects, run: str) -> RunRecord | None:
    """What a run measured; None where it left no record.

    Raises:
        CorruptObject: It is damaged.
    """
    key = keys.run_record(run)
    data = objects.read_if_present(key)
    return RunRecord.from_bytes(data, key) if data is not None else None


def read_runs(
    objects: StoreObjects, names: Iterable[str] | None = None, *, records: bool = False
) -> list[Run]:
    """The runs of these names, or all; one that cannot be read is told as such and hides no other.

    Args:
        objects: The store.
        names: Which; None: all.
        records: Whether to read what a run measured even where its driver has said how it ended.
    """
    wanted = run_names(objects) if names is None else list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _read(objects, name, records), wanted))
    return [run for run in found if run.progress or run.record or run.problem]


def _read(objects: StoreObjects, name: str, records: bool) -> Run:
    try:
        progress = read_progress(objects, name)
        said_all = progress is not None and progress.outcome and not records
        record = None if said_all else read_record(objects, name)
    except SoftcaskError as error:
        return Run(name=name, problem=str(error))
    return Run(name=name, progress=progress, record=record)


def this_process() -> tuple[str, int, int] | None:
    """By what this process is known on its machine; None where the system does not tell.

    A number alone is given to others in time, and other containers have the same ones: boot, process
    namespace and start make it one of a kind.
    """
    place, pid = _place(), os.getpid()
    started = _started(pid)
    return (place, pid, started) if place and started else None


def is_gone(process: tuple[str, int, int] | None) -> bool:
    """Whether a process of this machine has ended; False of all that are elsewhere or not known."""
    if process is None or process[0] != _place():
        return False
    return _started(process[1]) != process[2]


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        place = f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 -- no path, though it looks like one
        return hashlib.sha256(place.encode()).hexdigest()[:16]
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> int:
    """When it started, in ticks since boot; 0 where there is no such process, or only its remains."""
    try:
        # After the name, which may hold anything: state first, the start as the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
