"""What is to be done: units, and the tasks that group them. Pure: no file is read or written here.

A unit is (teacher, segment, view, range of rows). Units belong to the data: neither the number of workers
nor which teachers run together changes one. A task is the units of several teachers over the same rows, so
that these are read once; a resumed run has smaller tasks over the same units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from softcask.storage_schemas.keys import unit_name
from softcask.storage_schemas.manifest import SegmentManifest

MOST_UNIT_ROWS = 32_768
FEWEST_UNITS = 64
SHARD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Units of co-resident teachers over the same rows.

    Attributes:
        group: Which pool of workers runs it.
        segment: Name of the segment.
        view: Number of the view.
        index: Place of the units in the segment.
        start: First row.
        stop: End of the rows.
        teachers: Whose units.
    """

    group: str
    segment: str
    view: int
    index: int
    start: int
    stop: int
    teachers: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Name of its units within each teacher."""
        return unit_name(self.segment, self.view, self.index)

    @property
    def rows(self) -> int:
        """Rows it covers."""
        return self.stop - self.start


def choose_unit_rows(*, rows: int, row_bytes: int, batch_size: int) -> int:
    """Rows a unit when the user does not say: a whole number of batches, from the data alone.

    At most 32,768 rows or 64 MiB a shard, and small sets still fall into some 64 units, so that workers share
    them and a crash costs little.
    """
    most = min(MOST_UNIT_ROWS, SHARD_BYTES // row_bytes)
    wanted = min(most, -(-rows // FEWEST_UNITS))
    batches = max(1, min(-(-wanted // batch_size), most // batch_size))
    return batches * batch_size


def plan_tasks(
    segments: Iterable[SegmentManifest],
    groups: Mapping[str, Sequence[str]],
    committed: Mapping[str, frozenset[str] | set[str]],
    *,
    view: int = 0,
) -> list[Task]:
    """Units minus committed, as tasks in the order of the rows.

    Args:
        segments: What is to be labelled.
        groups: Name of a group -> its teachers.
        committed: Teacher -> names of its committed units.
        view: Number of the view.
    """
    tasks = []
    for segment in segments:
        for index in range(segment.units):
            start, stop = segment.unit_range(index)
            unit = unit_name(segment.segment, view, index)
            for group, teachers in groups.items():
                missing = tuple(name for name in teachers if unit not in committed.get(name, ()))
                if missing:
                    tasks.append(
                        Task(
                            group=group,
                            segment=segment.segment,
                            view=view,
                            index=index,
                            start=start,
                            stop=stop,
                            teachers=missing,
                        )
                    )
    return tasks
