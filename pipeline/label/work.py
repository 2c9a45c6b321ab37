"""A task on its way through a labeller's threads, and what is reported of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

from softcask.pipeline.plan import Task
from softcask.pipeline.store.receipts import CommitRow
from softcask.pipeline.store.rows import UnitRows
from softcask.storage_schemas.manifest import SegmentManifest, UnitCommit

_READ_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What one task did.

    Attributes:
        task: The task.
        rows: Rows that now have logits, by teacher, in units this call committed.
        seconds: Time spent to `read`, in `forward:TEACHER`, to `encode` and to `write`.
        device: Name of the device.
        node: Name of the machine.
        bytes: Bytes of the objects that this call wrote.
        repeated: Teachers whose pass was not needed in the end: another had committed their unit meanwhile.
        conditions: What each teacher computed under; see `softcask.pipeline.teachers.conditions`.
        warnings: What should be looked at.
        commits: What the catalog is to say of each of the task's units, also of one that another committed.
    """

    task: Task
    rows: dict[str, int]
    seconds: dict[str, float]
    device: str
    node: str = ""
    bytes: int = 0
    repeated: tuple[str, ...] = ()
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    commits: tuple[CommitRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that were read.

    Attributes:
        count: How many.
        staged: By teacher: the rows, or what its `stage` made of them.
    """

    count: int
    staged: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Work:
    """A task under way.

    Attributes:
        task: The task.
        segment: Its segment.
        rows: The unit's rows.
        teachers: Those whose unit is not committed yet; known once it is read.
        standing: Receipts of the others' units.
        unchanged: Whether the source is known to be as it was when it was indexed.
        batches: What was read, then None; or what went wrong.
        seconds: By stage.
    """

    task: Task
    segment: SegmentManifest
    rows: UnitRows
    teachers: tuple[str, ...] = ()
    standing: tuple[UnitCommit, ...] = ()
    unchanged: bool = False
    batches: Queue[Sequence[Batch] | BaseException | None] = field(default_factory=lambda: Queue(_READ_AHEAD))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def read(self, *, raising: bool = True) -> Iterator[Batch]:
        """The batches up to their end; the reader's error is raised or, when draining, ends them too."""
        while (item := self.batches.get()) is not None and not isinstance(item, BaseException):
            yield from item
        self.batches.put(None)  # whoever looks again finds an end, too
        if raising and item is not None:
            raise item

    def drain(self) -> None:
        """Let the reader come to its end: it must not wait for ever before a full queue."""
        for _ in self.read(raising=False):
            pass
