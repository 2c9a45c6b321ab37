from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.pipeline.plan import Task, Tasks, choose_unit_rows
from softcask.pipeline.plan import plan_tasks as lazily_planned
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest
from softcask.storage_schemas.unit_codes import codes_of

TEACHERS = ("a", "b", "c", "d")


def segment(number: int, rows: int, unit_rows: int) -> SegmentManifest:
    name = f"s{number:04d}"
    return SegmentManifest(
        segment=name,
        rows=rows,
        quarantined=0,
        labelled=0,
        unit_rows=unit_rows,
        input_shape=(1,),
        input_dtype="uint8",
        table=ObjectRecord.of(f"transfer_set/{name}/rows.parquet", b""),
    )


@st.composite
def plans(
    draw: st.DrawFn,
) -> tuple[list[SegmentManifest], dict[str, list[str]], dict[str, set[str]], list[int]]:
    """Segments, teachers in groups, some units committed (and names of units that are none), views."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=3))
    segments = [segment(number, *size) for number, size in enumerate(sizes)]
    views = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    groups: dict[str, list[str]] = {}
    for name in TEACHERS[: draw(st.integers(0, 4))]:
        groups.setdefault(draw(st.sampled_from(["x", "y"])), []).append(name)
    units = [
        f"s{number:04d}-v{view:04d}-{index:08d}"
        for view in views
        for number, (rows, unit_rows) in enumerate(sizes)
        for index in range(-(-rows // unit_rows) + 1)
    ]
    others = [f"s0000-v{max(views) + 1:04d}-00000000", "s0009-v0000-00000000"]
    committed = {
        name: set(draw(st.lists(st.sampled_from([*units, *others]), max_size=8)))
        for name in draw(st.lists(st.sampled_from(TEACHERS), unique=True))
    }
    return segments, groups, committed, views


Groups = Mapping[str, Sequence[str]]
Committed = Mapping[str, set[str]]


def plan_tasks(
    segments: list[SegmentManifest], groups: Groups, committed: Committed, *, views: Sequence[int] = (0,)
) -> Tasks:
    return lazily_planned(
        segments, groups, {n: codes_of(sorted(c)) for n, c in committed.items()}, views=views
    )


def listed(
    segments: list[SegmentManifest], groups: Groups, committed: Committed, *, views: Sequence[int] = (0,)
) -> list[Task]:
    """The plan by its plain words: every view, unit and group, whoever has not committed it."""
    tasks = []
    for view, part in product(views, segments):
        for index in range(-(-part.rows // part.unit_rows)):
            unit = f"{part.segment}-v{view:04d}-{index:08d}"
            for group, teachers in groups.items():
                if missing := tuple(name for name in teachers if unit not in committed.get(name, set())):
                    start, stop = index * part.unit_rows, min((index + 1) * part.unit_rows, part.rows)
                    tasks.append(
                        Task(
                            group=group,
                            segment=part.segment,
                            view=view,
                            index=index,
                            start=start,
                            stop=stop,
                            teachers=missing,
                        )
                    )
    return tasks


@given(plan=plans(), slices=st.slices(12))
def test_a_lazy_plan_is_the_list_that_it_stands_for(
    plan: tuple[list[SegmentManifest], dict[str, list[str]], dict[str, set[str]], list[int]], slices: slice
) -> None:
    segments, groups, committed, views = plan
    expected, tasks = listed(*plan[:3], views=views), plan_tasks(segments, groups, committed, views=views)
    assert list(tasks) == expected
    assert len(tasks) == len(expected)
    assert [tasks[place] for place in range(-len(expected), 0)] == expected
    assert list(tasks[slices]) == expected[slices]
    for place in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            tasks[place]
    assert tasks.views == {task.view for task in expected}
    assert tasks.teachers == {name for task in expected for name in task.teachers}
    assert tasks.logit_rows == sum(task.rows * len(task.teachers) for task in expected)
    for name in TEACHERS:
        assert tasks.rows_of(name) == sum(task.rows for task in expected if name in task.teachers)
    for group in (*groups, "another"):
        assert list(tasks.of_group(group)) == [task for task in expected if task.group == group]


def test_a_plan_of_a_million_units_holds_no_task() -> None:
    million = segment(0, 8 * 10**6 - 3, 8)
    tasks = plan_tasks([million], {"x": ["a", "b"]}, {"b": {"s0000-v0000-00000000"}})
    assert len(tasks) == 10**6
    assert (tasks[0].teachers, tasks[1].teachers) == (("a",), ("a", "b"))
    assert (tasks[-1].start, tasks[-1].stop) == (8 * 10**6 - 8, 8 * 10**6 - 3)
    assert tasks.logit_rows == 2 * (8 * 10**6 - 3) - 8


def covered(tasks: Sequence[Task]) -> Counter[tuple[str, int, str, int]]:
    """How often each (teacher, view, segment, row) is to be done."""
    return Counter(
        (teacher, task.view, task.segment, row)
        for task in tasks
        for teacher in task.teachers
        for row in range(task.start, task.stop)
    )


@given(plan=plans())
def test_tasks_and_committed_units_cover_every_row_of_every_teacher_exactly_once(
    plan: tuple[list[SegmentManifest], dict[str, list[str]], dict[str, set[str]], list[int]],
) -> None:
    segments, groups, committed, views = plan
    expected = {
        (teacher, view, part.segment, row)
        for members in groups.values()
        for teacher in members
        for view in views
        for part in segments
        for row in range(part.rows)
        if f"{part.segment}-v{view:04d}-{row // part.unit_rows:08d}" not in committed.get(teacher, set())
    }
    tasks = plan_tasks(segments, groups, committed, views=views)
    counts = covered(tasks)
    assert counts.keys() == expected
    assert set(counts.values()) <= {1}
    for task in tasks:
        assert set(task.teachers) <= set(groups[task.group])
        assert task.unit == f"{task.segment}-v{task.view:04d}-{task.index:08d}"
        assert task.rows == task.stop - task.start > 0


@given(plan=plans())
def test_a_unit_is_the_same_whatever_else_is_planned_and_whoever_runs_with_it(
    plan: tuple[list[SegmentManifest], dict[str, list[str]], dict[str, set[str]], list[int]],
) -> None:
    segments, groups, committed, views = plan
    together = plan_tasks(segments, groups, committed, views=views)
    alone = [
        task
        for teacher in sorted(name for members in groups.values() for name in members)
        for task in plan_tasks(segments, {"own": [teacher]}, committed, views=views)
    ]

    def units(tasks: Sequence[Task]) -> set[tuple[str, str, int, int]]:
        return {(name, task.unit, task.start, task.stop) for task in tasks for name in task.teachers}

    assert units(together) == units(alone)


@given(plan=plans())
def test_nothing_is_left_to_do_when_all_that_was_planned_is_committed(
    plan: tuple[list[SegmentManifest], dict[str, list[str]], dict[str, set[str]], list[int]],
) -> None:
    segments, groups, committed, views = plan
    for task in plan_tasks(segments, groups, committed, views=views):
        for teacher in task.teachers:
            committed.setdefault(teacher, set()).add(task.unit)
    assert not plan_tasks(segments, groups, committed, views=views)


def test_rows_are_read_once_for_teachers_that_live_together_and_in_their_order() -> None:
    tasks = plan_tasks([segment(0, 20, 8)], {"x": ["a", "b"], "y": ["c"]}, {"b": {"s0000-v0000-00000001"}})
    assert [(task.group, task.start, task.stop, task.teachers) for task in tasks] == [
        ("x", 0, 8, ("a", "b")),
        ("y", 0, 8, ("c",)),
        ("x", 8, 16, ("a",)),
        ("y", 8, 16, ("c",)),
        ("x", 16, 20, ("a", "b")),
        ("y", 16, 20, ("c",)),
    ]


SIZES = {
    "rows": st.integers(0, 10**8),
    "row_bytes": st.integers(1, 1 << 27),
    "batch_size": st.integers(1, 20_000),
}


@given(**SIZES)
def test_a_unit_is_a_whole_number_of_batches_within_its_bounds(
    rows: int, row_bytes: int, batch_size: int
) -> None:
    unit_rows = choose_unit_rows(rows=rows, row_bytes=row_bytes, batch_size=batch_size)
    assert unit_rows >= batch_size
    assert unit_rows % batch_size == 0
    if unit_rows > batch_size:  # a single batch may exceed any bound; another may not be what exceeds it
        assert unit_rows - batch_size < 32_768
        assert (unit_rows - batch_size) * row_bytes < 64 << 20
        assert (unit_rows - batch_size) * 64 < rows


@pytest.mark.parametrize(
    ("rows", "row_bytes", "batch_size", "expected"),
    [
        (60_000, 88, 256, 1024),  # MNIST: 938 rows a unit would be 64 units, 4 batches are 59
        (60_000, 88, 1, 938),
        (1_281_167, 2068, 256, 20_224),  # ImageNet: a 64th of the rows is 20,019, 79 batches
        (10**9, 2068, 256, 32_256),  # 64 MiB are 32,450 rows, 127 batches
        (10**9, 24, 256, 32_768),
        (10, 24, 256, 256),
        (0, 24, 256, 256),
        (10**6, 100 << 20, 8, 8),  # one row exceeds a shard
    ],
)
def test_units_of_familiar_sizes(rows: int, row_bytes: int, batch_size: int, expected: int) -> None:
    assert choose_unit_rows(rows=rows, row_bytes=row_bytes, batch_size=batch_size) == expected
