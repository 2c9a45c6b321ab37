"""The three threads of a labeller: what one of them meets must neither hang nor spoil the others' work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.worlds import CLASSES, write_rows

from softcask.pipeline.label import Labeller, LabelRecipe, TaskReport, labeller, reading
from softcask.pipeline.plan import Task, plan_tasks
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.receipts import committed_units
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas.errors import StoreAccess, TeacherError, TransferSetError
from softcask.storage_schemas.manifest import CodecSpec, ObjectRecord, SegmentManifest, TeacherManifest

UNITS, UNIT_ROWS, BATCH = 3, 64, 8
LONG = 30  # seconds, only ever waited for when something hangs

# The queue holds four batches: with one in the forward pass, the reader stands still with the sixth.
READ_WHEN_FULL = 6

Hook = Callable[[int], None]


def nothing(_: int) -> None:
    """What happens at a batch unless a test says otherwise."""


@dataclass
class Rows:
    """A transfer set that tells of every batch that is read, by its first row."""

    rows: TransferSet
    on_read: Hook = nothing
    read_so_far: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        self.read_so_far.append(int(positions_B[0]))
        self.on_read(int(positions_B[0]))
        return self.rows.read(positions_B)


@dataclass
class FirstNumbers:
    """A teacher whose logits are a row's first five numbers, and that tells of every batch."""

    name: str = "a"
    on_batch: Hook = nothing
    batches: list[int] = field(default_factory=list)

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        self.batches.append(int(inputs_B[0, 0, 0]))
        self.on_batch(int(inputs_B[0, 0, 0]))
        return inputs_B.reshape(len(inputs_B), -1)[:, :CLASSES].copy()

    def state_digest(self) -> str:
        return "sha256:of nothing"


class Loaded(TeacherOptions):
    """Options of a teacher that exists already."""

    kind: str = "loaded"
    teacher: Any

    def load(self) -> Any:
        return self.teacher


@dataclass
class Given:
    """A transfer set's options whose source exists already."""

    source: Rows

    def open(self) -> Rows:
        return self.source


@dataclass
class World:
    """A labeller over three units of eight batches, and what it was made of."""

    labeller: Labeller
    objects: StoreObjects
    source: Rows
    teacher: FirstNumbers
    tasks: list[Task]

    def submit(self, *units: int) -> list[Future[TaskReport]]:
        return [self.labeller.submit(self.tasks[unit]) for unit in units]

    @property
    def committed(self) -> list[int]:
        return sorted(int(unit[-8:]) for unit in committed_units(self.objects, "a"))


def prepared(folder: Path, source: TransferSet) -> tuple[StoreObjects, SegmentManifest]:
    objects = StoreObjects.at(str(folder / "cask"))
    prepare_root(objects, [str(number) for number in range(CLASSES)])
    segment = prepare_segment(
        objects,
        "s0000",
        source=source.describe(),
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        unit_rows=UNIT_ROWS,
        index=lambda: index_rows(source, num_classes=CLASSES, max_quarantined=1),
        choose_unit_rows=lambda _: UNIT_ROWS,
    )
    return objects, segment


def build(folder: Path) -> World:
    rows = ArraysOptions(inputs=str(folder / "inputs.npy"), labels=str(folder / "labels.npy")).open()
    objects, segment = prepared(folder, rows)
    manifest = TeacherManifest(
        name="a",
        kind="loaded",
        role="member",
        num_classes=CLASSES,
        batch_size=BATCH,
        codec=CodecSpec(name="dense16"),
        fingerprint={"teacher": "the first numbers"},
        recorded={},
    )
    source, teacher = Rows(rows), FirstNumbers()
    recipe = LabelRecipe(
        store_uri=objects.uri,
        transfer_set=Given(source),  # type: ignore[arg-type]
        teachers=(Loaded(name="a", teacher=teacher, batch_size=BATCH),),
        manifests=(manifest,),
    )
    labeller = recipe.build()
    source.read_so_far.clear()  # the probe rows
    teacher.batches.clear()
    return World(labeller, objects, source, teacher, plan_tasks([segment], {"g": ["a"]}, {}))


@pytest.fixture(autouse=True)
def batches_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of large rows are; else a unit of these would be read at once."""
    monkeypatch.setattr(reading, "_READ_BYTES", 0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    write_rows(tmp_path, rows=UNITS * UNIT_ROWS)
    made = build(tmp_path)
    yield made
    made.labeller.close()


def wait(event: threading.Event) -> None:
    assert event.wait(LONG), "something that had to happen did not"


@contextmanager
def in_a_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(LONG)
    assert not thread.is_alive(), "it hangs"


def full_queue(world: World) -> threading.Event:
    """Set once the reader stands before a full queue."""
    full = threading.Event()

    def count(_: int) -> None:
        if len(world.source.read_so_far) == READ_WHEN_FULL:
            full.set()

    world.source.on_read = count
    return full


def test_units_come_back_in_order_with_the_logits_of_their_rows(world: World, tmp_path: Path) -> None:
    reports = [done.result(LONG) for done in world.submit(0, 1, 2)]
    world.labeller.close()
    assert [(report.task.index, report.rows) for report in reports] == [
        (unit, {"a": UNIT_ROWS}) for unit in range(UNITS)
    ]
    assert world.teacher.batches == list(range(0, UNITS * UNIT_ROWS, BATCH))
    assert set(reports[0].seconds) == {"read", "forward:a", "encode", "write"}
    inputs = np.load(tmp_path / "inputs.npy").reshape(UNITS * UNIT_ROWS, -1)[:, :CLASSES]
    found = open_store(world.objects.uri, allow_partial=True).logits("a", np.arange(len(inputs)))
    # float16 has 11 significant bits of the distance to the row's maximum, which is some hundreds at most.
    np.testing.assert_allclose(found, inputs, rtol=0, atol=(UNITS * UNIT_ROWS + 8) * 2**-11)


def test_batches_of_small_rows_are_read_together_and_computed_apart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_bytes = 6 * 4 * 4
    monkeypatch.setattr(reading, "_READ_BYTES", 3 * BATCH * row_bytes + 1)
    assert world.submit(1)[0].result(LONG).rows == {"a": UNIT_ROWS}
    assert world.source.read_so_far == [UNIT_ROWS, UNIT_ROWS + 3 * BATCH, UNIT_ROWS + 6 * BATCH]
    assert world.teacher.batches == list(range(UNIT_ROWS, 2 * UNIT_ROWS, BATCH))


def test_a_row_that_cannot_be_read_ends_its_own_unit_alone(world: World) -> None:
    failed = threading.Event()

    def fail_within_unit_1(first: int) -> None:
        if first == UNIT_ROWS + 2 * BATCH:
            failed.set()
            raise TransferSetError("the disk is gone")

    world.source.on_read = fail_within_unit_1
    # The forward pass stays with the last batch of unit 0 until the reader has failed in unit 1.
    world.teacher.on_batch = lambda first: wait(failed) if first == UNIT_ROWS - BATCH else None
    good, bad, after = world.submit(0, 1, 2)
    assert good.result(LONG).rows == {"a": UNIT_ROWS}
    with pytest.raises(TransferSetError, match="the disk is gone"):
        bad.result(LONG)
    assert after.result(LONG).rows == {"a": UNIT_ROWS}
    assert world.committed == [0, 2]


def test_a_forward_pass_that_fails_sets_a_reader_free_that_stands_before_a_full_queue(world: World) -> None:
    full = full_queue(world)

    def fail_once(first: int) -> None:
        if first == 0 and not full.is_set():
            wait(full)
            raise TeacherError("out of memory")

    world.teacher.on_batch = fail_once
    bad, after, again = world.submit(0, 1, 0)
    with pytest.raises(TeacherError, match="out of memory"):
        bad.result(LONG)
    assert after.result(LONG).rows == again.result(LONG).rows == {"a": UNIT_ROWS}
    assert world.committed == [0, 1]


def test_rows_that_change_while_a_unit_is_read_end_that_unit(world: World, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npy"

    def touch_at_last(first: int) -> None:
        if first == 2 * UNIT_ROWS - BATCH:
            os.utime(inputs, ns=(1, 1))

    world.source.on_read = touch_at_last
    good, bad = world.submit(0, 1)
    assert good.result(LONG).rows == {"a": UNIT_ROWS}
    with pytest.raises(TransferSetError, match="changed while unit s0000-v0000-00000001 was read"):
        bad.result(LONG)
    assert world.committed == [0]


def test_every_row_is_looked_at_where_the_source_is_not_known_to_be_as_it_was(
    world: World, tmp_path: Path
) -> None:
    changed = np.load(tmp_path / "inputs.npy", mmap_mode="r+")
    changed[UNIT_ROWS + 3] += 1  # in the middle of a batch
    changed.flush()
    os.utime(tmp_path / "inputs.npy", ns=(1, 1))
    with pytest.raises(TransferSetError, match=rf"row {UNIT_ROWS + 3} .* is not what it was"):
        world.submit(1)[0].result(LONG)


def test_a_write_that_fails_ends_its_own_unit_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, failed = labeller.commit_once, []

    def fail_once(objects: Any, teacher: Any, rows: Any, logits_RC: Any) -> Any:
        if rows.index == 1 and not failed:
            failed.append(rows.index)
            raise StoreAccess("no space left")
        return commit(objects, teacher, rows, logits_RC)

    monkeypatch.setattr(labeller, "commit_once", fail_once)
    good, bad, after, again = world.submit(0, 1, 2, 1)
    with pytest.raises(StoreAccess, match="no space left"):
        bad.result(LONG)
    assert [done.result(LONG).task.index for done in (good, after, again)] == [0, 2, 1]
    assert world.committed == [0, 1, 2]


def test_a_pass_over_a_unit_that_another_commits_meanwhile_is_said_to_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = labeller.commit_once

    def after_another(*arguments: Any) -> Any:
        commit(*arguments)
        return commit(*arguments)

    ours = world.submit(0)[0].result(LONG)
    monkeypatch.setattr(labeller, "commit_once", after_another)
    theirs = world.submit(1)[0].result(LONG)
    assert (ours.rows, ours.repeated) == ({"a": UNIT_ROWS}, ())
    assert (theirs.rows, theirs.repeated, theirs.bytes) == ({}, ("a",), 0)
    assert ours.bytes > 0
    assert theirs.seconds["forward:a"] > 0, "which was spent all the same"
    assert world.committed == [0, 1]


def test_closing_gives_up_at_the_next_batch_and_resolves_every_report(world: World) -> None:
    full, held = full_queue(world), threading.Event()

    def hold(_: int) -> None:
        held.set()
        assert world.labeller._closed.wait(LONG)

    world.teacher.on_batch = hold
    reports = world.submit(0, 1, 2)
    wait(held)
    wait(full)
    with in_a_thread(world.labeller.close):
        for done in reports:
            with pytest.raises(CancelledError, match="was given up"):
                done.result(LONG)
    assert world.teacher.batches == [0], "only the batch that was under way was finished"
    assert len(world.source.read_so_far) == READ_WHEN_FULL
    assert world.committed == []


def test_closing_still_commits_a_unit_that_is_being_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, writing, forwarding = labeller.commit_once, threading.Event(), threading.Event()

    def hold_write(*arguments: Any) -> Any:
        writing.set()
        assert world.labeller._closed.wait(LONG)
        return commit(*arguments)

    def hold_unit_1(first: int) -> None:
        if first == UNIT_ROWS:
            forwarding.set()
            assert world.labeller._closed.wait(LONG)

    monkeypatch.setattr(labeller, "commit_once", hold_write)
    world.teacher.on_batch = hold_unit_1
    first, second = world.submit(0, 1)
    wait(writing)
    wait(forwarding)
    with in_a_thread(world.labeller.close):
        assert first.result(LONG).rows == {"a": UNIT_ROWS}
        with pytest.raises(CancelledError):
            second.result(LONG)
    assert world.committed == [0]


def test_closing_when_all_reports_are_in_changes_nothing(world: World) -> None:
    reports = [done.result(LONG) for done in world.submit(0, 1, 2)]
    world.labeller.close()
    world.labeller.close()
    assert [report.rows for report in reports] == [{"a": UNIT_ROWS}] * UNITS
    assert world.committed == [0, 1, 2]


def test_two_threads_may_submit_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a second task let in between the two halves of the first, each thread would wait for the other."""
    begin, half_in, other_in = world.labeller._reader.submit, threading.Event(), threading.Event()

    def begin_and_let_others_in(*arguments: Any) -> Any:
        begun = begin(*arguments)
        if not half_in.is_set():
            half_in.set()
            other_in.wait(0.2)  # as it must: the other may not get in before this one is in wholly
        return begun

    monkeypatch.setattr(world.labeller._reader, "submit", begin_and_let_others_in)
    reports: list[Future[TaskReport]] = []

    def submit_other() -> None:
        wait(half_in)
        reports.extend(world.submit(1))
        other_in.set()

    with in_a_thread(submit_other):
        reports.extend(world.submit(0))
    assert sorted(done.result(LONG).task.index for done in reports) == [0, 1]


def test_a_unit_whose_rows_are_all_quarantined_is_committed_without_a_pass(tmp_path: Path) -> None:
    write_rows(tmp_path, rows=UNITS * UNIT_ROWS, unreadable=tuple(range(UNIT_ROWS, 2 * UNIT_ROWS)))
    world = build(tmp_path)
    (done,) = world.submit(1)
    assert done.result(LONG).rows == {"a": 0}
    world.labeller.close()
    assert (world.committed, world.teacher.batches, world.source.read_so_far) == ([1], [], [])


def test_a_unit_that_another_driver_committed_meanwhile_is_passed_over(tmp_path: Path) -> None:
    write_rows(tmp_path, rows=UNITS * UNIT_ROWS)
    one, other = build(tmp_path), build(tmp_path)
    assert one.submit(1)[0].result(LONG).rows == {"a": UNIT_ROWS}
    passed, done = other.submit(1, 2)
    assert (passed.result(LONG).rows, done.result(LONG).rows) == ({}, {"a": UNIT_ROWS})
    for report in (passed.result(), done.result()):  # the catalog must hold either unit
        (commit,) = report.commits
        assert commit["unit"] == report.task.unit
        key = commit["receipt"]["key"]
        assert ObjectRecord.model_validate(commit["receipt"]) == ObjectRecord.of(key, one.objects.read(key))
    assert other.teacher.batches[0] == 2 * UNIT_ROWS
    assert min(other.source.read_so_far) == 2 * UNIT_ROWS
    for world in (one, other):
        world.labeller.close()
