"""Ray must equal the serial executor object by object, and survive the death of its workers."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.worlds import ROWS, identities_of, objects_of, run_config, teacher, write_rows

from softcask.pipeline.executors.base import ExecutorState, Pool
from softcask.pipeline.executors.ray import RayExecutor
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.results import Progress
from softcask.storage_schemas.errors import ExecutorError, ManifestMismatch, TeacherError, UnitsGivenUp

RAY = {"kind": "ray", "workers": 2}


def run(folder: Path, cask: str, *teachers: dict[str, Any], executor: dict[str, Any], **options: Any) -> Any:
    store = {"uri": str(folder / cask), "unit_rows": 32}
    return precompute(run_config(folder, *teachers, store=store, executor=executor), **options)


def workers() -> list[psutil.Process]:
    """Processes of this session's own cluster that hold an actor."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if is_actor(process)]


def is_actor(process: psutil.Process) -> bool:
    try:
        return any("_Actor" in part for part in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False  # it has ended


def test_ray_and_serial_stores_are_equal_object_by_object(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path, unreadable=(5, 77))
    both = [teacher("a"), teacher("b", kwargs={"seed": 1, "hidden": 300}, batch_size=8)]
    run(tmp_path, "serial", *both, executor={"kind": "serial"})
    summary = run(tmp_path, "ray", *both, executor=RAY)
    assert summary.tasks == 16
    assert objects_of(tmp_path / "ray") == objects_of(tmp_path / "serial")


def test_a_killed_worker_is_replaced_and_costs_only_its_units(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    slow = teacher("a", factory="toy_models:slow", kwargs={"seconds": 0.02})
    run(tmp_path, "undisturbed", slow, executor={"kind": "serial"})
    killed: list[int] = []
    standing: dict[str, tuple[int, int]] = {}

    def kill_one(progress: Progress) -> None:
        if progress.stage == "label" and not killed:
            victim = workers()[0]
            standing.update(identities_of(tmp_path / "ray" / "teachers"))
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    summary = run(tmp_path, "ray", slow, executor={**RAY, "workers": 1}, watch=kill_one)
    assert len(killed) == 1
    assert objects_of(tmp_path / "ray") == objects_of(tmp_path / "undisturbed")
    after = identities_of(tmp_path / "ray" / "teachers")
    assert {key: after[key] for key in standing} == standing
    assert summary.tasks == 8


def test_a_unit_that_kills_its_worker_is_named_and_all_else_is_sealed(
    tmp_path: Path, ray_cluster: None
) -> None:
    write_rows(tmp_path)
    deadly = teacher("a", factory="toy_models:deadly")
    with pytest.raises(UnitsGivenUp) as caught:
        run(tmp_path, "ray", deadly, executor={**RAY, "max_retries": 1})
    told = str(caught.value)
    assert "unit s0000-v0000-00000002 of a, tried 2 times" in told
    assert "its worker process has died" in told and "Out of memory is the commonest cause" in told
    assert "Some common causes" not in told
    done = {path.name for path in (tmp_path / "ray" / "teachers" / "a" / "commits").iterdir()}
    assert done == {f"s0000-v0000-{index:08d}.json" for index in range(8) if index != 2}
    assert "Everything else is sealed as generation 1" in told


def test_errors_of_workers_keep_their_kind_and_words(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    faulty = teacher("bad", factory="toy_models:faulty", kwargs={"where": 49.5})
    with pytest.raises(UnitsGivenUp, match="TeacherError: teacher 'bad', unit s0000-v0000-00000003.*00099"):
        run(tmp_path, "ray", faulty, executor={**RAY, "max_retries": 0})
    with pytest.raises(TeacherError, match="no kernel image"):
        run(tmp_path, "always", teacher("a", factory="toy_models:broken_after_probe"), executor=RAY)
    run(tmp_path, "pinned", teacher("a"), executor=RAY)
    with pytest.raises(ManifestMismatch, match="Nothing was changed"):
        run(tmp_path, "pinned", teacher("a", kwargs={"seed": 2}), executor=RAY)


def test_what_the_machine_does_not_have_is_named_at_once(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    with pytest.raises(ExecutorError, match="a needs 4 GPU, cluster has 1 GPU; waited 0 s.*lower num_cpus"):
        run(tmp_path, "ray", teacher("a", num_gpus=4), executor=RAY)


def test_a_gpu_may_be_shared_by_fractions(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    half = teacher("a", num_gpus=0.5, device="cpu")
    assert run(tmp_path, "ray", half, executor={"kind": "ray"}).teachers["a"].rows == ROWS


def test_a_worker_that_finds_no_room_does_not_keep_a_finished_run_waiting(
    tmp_path: Path, ray_cluster: None
) -> None:
    write_rows(tmp_path)
    summary = run(tmp_path, "ray", executor={"kind": "ray", "address": "auto", "workers": 4})
    assert summary.workers <= 2
    assert summary.tasks == 8


def test_a_cluster_without_room_ends_in_an_error_that_names_what_is_missing(
    tmp_path: Path, ray_cluster: None
) -> None:
    write_rows(tmp_path)
    patient = {"kind": "ray", "address": "auto", "start_timeout": 0.5}
    with pytest.raises(ExecutorError, match="a needs 4 GPU, cluster has 1 GPU; waited.*start_timeout"):
        run(tmp_path, "ray", teacher("a", num_gpus=4), executor=patient)


def test_an_interrupted_run_leaves_no_actor_and_what_was_complete(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    slow = teacher("a", factory="toy_models:slow", kwargs={"seconds": 0.02})

    def interrupt(progress: Progress) -> None:
        if progress.stage == "label" and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "ray", slow, executor=RAY, watch=interrupt)
    psutil.wait_procs(workers(), timeout=60)
    assert not workers()
    run(tmp_path, "undisturbed", slow, executor={"kind": "serial"})
    run(tmp_path, "ray", slow, executor=RAY)
    assert objects_of(tmp_path / "ray") == objects_of(tmp_path / "undisturbed")


def test_two_runs_of_one_process_tell_of_their_own_workers(tmp_path: Path, ray_cluster: None) -> None:
    executor = RayExecutor(max_workers=1)
    assert executor.state() == ExecutorState()
    tasks = Pool(name="p", recipe=Doubling(), tasks=range(5), num_cpus=1, num_gpus=0)
    assert sorted(executor.run([tasks])) == [0, 2, 4, 6, 8]
    assert (executor.state().done, executor.state().workers, executor.workers) == (5, 0, 1)


class Doubling:
    """A worker that is its own recipe."""

    def build(self) -> Doubling:
        return self

    def submit(self, task: int) -> Future[int]:
        done: Future[int] = Future()
        done.set_result(2 * task)
        return done

    def close(self) -> None:
        pass
