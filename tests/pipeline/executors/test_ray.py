"""Ray must equal the serial executor object by object, and survive the death of its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.worlds import ROWS, identities_of, objects_of, run_config, teacher, write_rows

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.executors.ray import RayExecutor
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.results import Progress
from softcask.storage_schemas.errors import ExecutorError, ManifestMismatch, TeacherError

RAY = {"kind": "ray", "workers": 2}


def run(folder: Path, cask: str, *teachers: dict[str, Any], executor: dict[str, Any], **options: Any) -> Any:
    store = {"uri": str(folder / cask), "unit_rows": 32}
    return precompute(run_config(folder, *teachers, store=store, executor=executor), **options)


def workers() -> list[psutil.Process]:
    """Processes of this session's own cluster that hold an actor."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if any("_Actor" in part for part in process.cmdline())]


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


def test_workers_that_keep_dying_end_in_a_clear_error(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    deadly = teacher("a", factory="toy_models:deadly")
    with pytest.raises(ExecutorError, match="took down its worker 2 times.*What is committed is safe"):
        run(tmp_path, "ray", deadly, executor={**RAY, "workers": 1, "max_retries": 1})


def test_errors_of_workers_keep_their_kind_and_words(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    faulty = teacher("bad", factory="toy_models:faulty", kwargs={"where": 49.5})
    with pytest.raises(TeacherError, match="'bad', unit s0000-v0000-00000003.*inputs-00000099"):
        run(tmp_path, "ray", faulty, executor=RAY)
    run(tmp_path, "pinned", teacher("a"), executor=RAY)
    with pytest.raises(ManifestMismatch, match="Nothing was changed"):
        run(tmp_path, "pinned", teacher("a", kwargs={"seed": 2}), executor=RAY)


def test_what_the_machine_does_not_have_is_named(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path)
    with pytest.raises(ExecutorError, match="needs 1 CPU and 4 GPU; this machine has 2 CPU and 1 GPU"):
        run(tmp_path, "ray", teacher("a", num_gpus=4), executor=RAY)


@pytest.mark.parametrize(("num_gpus", "workers"), [(0, 2), (0.5, 2), (1, 1)])
def test_as_many_workers_are_started_as_fit(num_gpus: float, workers: int, ray_cluster: None) -> None:
    pool: Pool[int, int] = Pool(
        name="p", recipe=_NoRecipe(), tasks=list(range(9)), num_cpus=1, num_gpus=num_gpus
    )
    assert RayExecutor()._worker_count(pool) == workers


class _NoRecipe:
    def build(self) -> Any:
        raise AssertionError("no worker is to be built")


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
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcask.pipeline.executors.ray._LOOK_EVERY", 0.2)
    write_rows(tmp_path)
    patient = {"kind": "ray", "address": "auto", "start_timeout": 0.5}
    with pytest.raises(
        ExecutorError, match="waits for 1 CPU and 4 GPU since.*free in the cluster: 2 CPU and 1 GPU"
    ):
        run(tmp_path, "ray", teacher("a", num_gpus=4), executor=patient)


def test_a_unit_that_kills_its_worker_is_named_and_the_others_are_committed(
    tmp_path: Path, ray_cluster: None
) -> None:
    write_rows(tmp_path)
    deadly = teacher("a", factory="toy_models:deadly")
    with pytest.raises(ExecutorError, match="index=2,"):
        run(tmp_path, "ray", deadly, executor={**RAY, "max_retries": 2})
    done = {path.name for path in (tmp_path / "ray" / "teachers" / "a" / "commits").iterdir()}
    assert done == {f"s0000-v0000-{index:08d}.json" for index in range(8) if index != 2}
