"""Students side by side on a small cluster: the same students, and a worker that dies costs its epoch."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from safetensors.numpy import load_file
from tests.jobs.conftest import Project
from typer.testing import Result

from softcask.jobs.sweeping.config import load_sweep
from softcask.jobs.sweeping.on_ray import _needs, _train
from softcask.jobs.sweeping.students import plan_students
from softcask.jobs.sweeping.where import Where
from softcask.pipeline.executors.ray.connection import connect, connected
from softcask.storage_schemas.errors import ExecutorError

Softcask = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Connected to once for all tests here; sweeps find it and leave it running."""
    with connected("local", object_store_mb=100):
        yield


@pytest.fixture
def labelled(softcask: Softcask, project: Project, student: Path) -> str:
    assert softcask("precompute", project.run).exit_code == 0
    return str(student)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()}


def test_students_on_ray_are_those_of_this_process(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    grid = ["--grid", "targets.temperature=1,20", "--grid", "loss.hard_label_weight=0,0.5"]
    here, there = project.folder / "here", project.folder / "there"
    assert softcask("sweep", labelled, *grid, "--serial", "--output", str(here)).exit_code == 0
    done = softcask("sweep", labelled, *grid, "--output", str(there), "--json")
    assert done.exit_code == 0, done.output
    names = [each["name"] for each in json.loads(done.stdout)["students"]]
    assert len(names) == 4 and all(weights_of(here / name) == weights_of(there / name) for name in names)
    assert not list(there.glob(".sweep-*"))


def test_a_student_whose_worker_is_killed_goes_on_at_its_checkpoint(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    died = project.folder / "died"
    grid = ["--grid", "training.seed=5,6", "--set", "model.factory=toy_models:deadly_once", "--workers", "1"]
    grid += ["--set", f"model.kwargs={{ file = '{died}', batch = 6 }}"]
    done = softcask("sweep", labelled, *grid)
    assert done.exit_code == 0, done.output
    assert died.exists() and "seed=5: its worker was lost" in done.stderr
    assert "seed=5: going on after epoch 1 of 2" in done.stderr
    swept = project.folder / "student-sweep"
    shutil.move(swept, project.folder / "killed")
    assert softcask("sweep", labelled, *grid).exit_code == 0
    assert all(
        weights_of(swept / s) == weights_of(project.folder / "killed" / s) for s in ("seed=5", "seed=6")
    )


def test_a_student_that_kills_its_worker_each_time_fails_alone(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    grid = ["--grid", "model.factory=toy_models:net,toy_models:deadly", "--set", "model.kwargs={}"]
    grid += ["--set", "preprocessing.scale=0.5"]
    done = softcask("sweep", labelled, *grid, "--json")
    assert done.exit_code == 2
    told = {each["name"].partition("-")[0]: each for each in json.loads(done.stdout)["students"]}
    assert "its worker was lost 3 times" in told["factory=toy_models_deadly"]["error"]
    assert told["factory=toy_models_net"]["result"]["epochs"] == 2


def test_more_than_any_node_has_is_refused(softcask: Softcask, labelled: str) -> None:
    refused = softcask("sweep", labelled, "--grid", "training.seed=0,1", "--gpus", "3")
    assert refused.exit_code == 2
    assert "no node of the cluster has them" in refused.stderr and "--serial" in refused.stderr


def test_a_node_that_does_not_see_the_output_says_so(labelled: str, tmp_path: Path) -> None:
    student = plan_students(load_sweep(Path(labelled), grid=["training.seed=0,1"]))[0]
    outcome = _train(student, None, str(tmp_path / "elsewhere" / ".sweep-1"), False, 1)
    assert outcome.result is None and outcome.error is not None
    assert f"does not see {tmp_path}/elsewhere" in outcome.error


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    with socket.socket() as unheard:  # bound, and not listened to
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        with pytest.raises(ExecutorError, match=f"Ray at '127.0.0.1:{port}': nobody answers there"):
            connect(f"127.0.0.1:{port}", object_store_mb=100)


@pytest.mark.parametrize(
    ("where", "gpus"),
    [(Where(), 1.0), (Where(gpus=0.25), 0.25), (Where(gpus=0), 0), (Where(cpus=2, gpus=2), 2)],
)
def test_a_student_has_a_gpu_where_there_are_any_unless_it_is_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, where: Where, gpus: float
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}, {"Alive": False, "Resources": {}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert _needs(where) == {"num_cpus": where.cpus, "num_gpus": gpus}


def test_a_cluster_that_may_grow_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}])
    assert _needs(Where(address="auto", gpus=1)) == {"num_cpus": 1, "num_gpus": 1}
    assert "waiting for one that has" in caplog.text and "4 CPUs, 0 GPUs" in caplog.text
