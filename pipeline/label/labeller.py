"""A labeller lives in one process, holds all teachers of its group, and runs three threads.

One reads the batches of the next unit while one runs the teachers and one commits the unit before. It knows
nothing of where it runs.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.label.committing import with_room
from softcask.pipeline.label.reading import UnitReader
from softcask.pipeline.label.running import UnitRunner
from softcask.pipeline.label.segments import Segments
from softcask.pipeline.label.work import TaskReport, Work
from softcask.pipeline.logs import about
from softcask.pipeline.pinning import pin
from softcask.pipeline.plan import Task
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.receipts import commit_row
from softcask.pipeline.store.writing.commit import commit_once
from softcask.pipeline.store.writing.encoding import EncodedUnit, drift
from softcask.pipeline.teachers.conditions import conditions_of
from softcask.pipeline.teachers.fitting import FittedTeacher
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.options import planned_views
from softcask.storage_schemas.manifest import UnitCommit

if TYPE_CHECKING:
    from softcask.pipeline.label.recipe import LabelRecipe


class Labeller:
    """Runs tasks, in the order they are submitted."""

    def __init__(self, recipe: LabelRecipe) -> None:
        """Load teachers and check them against their probe rows; see `LabelRecipe.build`."""
        add_to_path(recipe.python_path)
        self._objects = StoreObjects.at(recipe.store_uri)
        self._segments = Segments(self._objects)
        self._manifests = {manifest.name: manifest for manifest in recipe.manifests}
        self._order = threading.Lock()
        self._closed = threading.Event()
        self._reader, self._forwarder, self._writer = (
            ThreadPoolExecutor(1, name) for name in ("read", "run", "write")
        )
        source = recipe.transfer_set.open()
        teachers = self._forwarder.submit(self._load, recipe, source).result()
        self._units = UnitReader(
            views=Views.of(recipe.views) if recipe.views is not None else None,
            objects=self._objects,
            source=source,
            segments=self._segments,
            manifests=self._manifests,
            teachers=teachers,
            closed=self._closed,
        )
        self._runner = UnitRunner(
            teachers=teachers,
            manifests=self._manifests,
            codecs={name: load_codec(self._objects, known) for name, known in self._manifests.items()},
            closed=self._closed,
        )

        self._node, self._run = platform.node(), {"run": recipe.run} if recipe.run else {}
        self._conditions = self._forwarder.submit(self._look_at_conditions).result()

    def submit(self, task: Task) -> Future[TaskReport]:
        """Start a task; its report comes when all its units are committed.

        The caller bounds how many tasks are under way: each may hold the logits of its whole unit.
        """
        done: Future[TaskReport] = Future()
        work = Work(
            task=task, segment=self._segments.manifest(task.segment), rows=self._segments.unit_rows(task)
        )
        # Reader and forward thread must see tasks in one order, or each waits for what the other has not
        # begun.
        with self._order:
            self._reader.submit(self._about, work, self._units.read)
            self._forwarder.submit(self._about, work, self._forward, done)
        return done

    def close(self) -> None:
        """End the threads within a batch; a unit whose logits are complete is still committed.

        Reports of units that are given up raise `concurrent.futures.CancelledError`.
        """
        self._closed.set()
        for pool in (self._reader, self._forwarder, self._writer):
            pool.shutdown()

    def _load(self, recipe: LabelRecipe, source: TransferSet) -> dict[str, FittedTeacher]:
        segments = self._segments.all()
        teachers = {}
        for options, manifest in zip(recipe.teachers, recipe.manifests, strict=True):
            teacher = teachers[options.name] = FittedTeacher(options.load(), options.batch_size)
            pin(
                self._objects,
                teacher,
                options,
                manifest,
                source,
                segments,
                views=planned_views(recipe.views),
            )
        return teachers

    def _about(self, work: Work, step: Callable[..., None], *arguments: Any) -> None:
        """Do a step, with what it is about in all that is logged meanwhile."""
        task = work.task
        with about(**self._run, unit=task.unit, teacher=",".join(work.teachers or task.teachers)):
            step(work, *arguments)

    def _forward(self, work: Work, done: Future[TaskReport]) -> None:
        try:
            encoded = self._runner.run(work)
        except BaseException as error:
            work.drain()
            done.set_exception(error)
            return
        self._writer.submit(self._about, work, self._write, encoded, done)

    def _write(self, work: Work, encoded: dict[str, EncodedUnit], done: Future[TaskReport]) -> None:
        try:
            started = time.perf_counter()
            told = [
                drift(unit.fidelity, self._manifests[name].expected_fidelity, f"{name} on {work.task.unit}")
                for name, unit in encoded.items()
            ]
            made = {name: self._commit(work, name, unit) for name, unit in encoded.items()}
            ours = {name: commit for name, (commit, mine) in made.items() if mine}
            commits = [commit for commit, _ in made.values()]
            work.seconds["write"] = time.perf_counter() - started
            done.set_result(
                TaskReport(
                    task=work.task,
                    rows={name: commit.rows for name, commit in ours.items()},
                    seconds=dict(work.seconds),
                    device=self._device(),
                    node=self._node,
                    bytes=sum(record.size for commit in ours.values() for record in commit.objects),
                    repeated=tuple(name for name in made if name not in ours),
                    conditions=self._conditions,
                    warnings=(*(line for line in told if line), *self._told()),
                    commits=tuple(commit_row(commit) for commit in (*work.standing, *commits)),
                )
            )
        except BaseException as error:
            done.set_exception(error)

    def _commit(self, work: Work, name: str, unit: EncodedUnit) -> tuple[UnitCommit, bool]:
        """The unit's receipt, and whether this call is what committed it."""
        commit = partial(commit_once, self._objects, self._manifests[name], work.rows, unit)
        return with_room(commit, f"unit {work.task.unit} of {name}", self._closed)

    def _look_at_conditions(self) -> dict[str, dict[str, Any]]:
        """By the thread that computes: torch keeps some of them by thread."""
        return {name: conditions_of(teacher) for name, teacher in self._runner.teachers.items()}

    def _told(self) -> list[str]:
        return [line for teacher in self._runner.teachers.values() for line in teacher.told()]

    def _device(self) -> str:
        fitted = self._runner.teachers.values()
        devices = {str(getattr(each.teacher, "device", "cpu")) for each in fitted}
        return ",".join(sorted(devices))
