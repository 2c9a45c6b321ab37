"""Scheduling on GPUs that do not exist: real actors on a real cluster, which believes that it has them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from softcask.pipeline.executors.base import Failure, Pool
from softcask.pipeline.executors.queue import Rules
from softcask.pipeline.executors.ray import RayExecutor

TINY = {"object_store_memory": 80 << 20, "include_dashboard": False}
# A node that does not answer is dead after some two seconds, not after Ray's fifteen.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Seen:
    """What a worker saw of its place."""

    pool: str
    task: int
    process: int
    node: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Looking:
    """A recipe, and the worker that it builds: looks where it runs."""

    pool: str

    def build(self) -> Looking:
        return self

    def submit(self, task: int) -> Future[Seen]:
        import ray

        done: Future[Seen] = Future()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = tuple(device for device in visible.split(",") if device)
        done.set_result(Seen(self.pool, task, os.getpid(), ray.get_runtime_context().get_node_id(), devices))
        return done

    def close(self) -> None:
        pass


def pool(name: str, tasks: int, *, gpus: float = 0) -> Pool[int, Seen]:
    return Pool(name=name, recipe=Looking(name), tasks=range(tasks), num_cpus=1, num_gpus=gpus)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two CPUs and nothing else; tests add nodes and take them away."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "_system_config": HEALTH, **TINY})
    yield here
    for node in [*here.worker_nodes, here.head_node]:
        here.remove_node(node, allow_graceful=False)
    os.environ.clear()
    os.environ |= before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster: Any) -> Iterator[Any]:
    """Adds nodes with GPUs, for one test."""
    added = []

    def add(gpus: int) -> Any:
        added.append(cluster.add_node(num_cpus=4, num_gpus=gpus, **TINY))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)


def lose(cluster: Any, node: Any) -> None:
    """The node with its actors, which outlive their raylet a little on a machine that goes on."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    actors = raylet.children(recursive=True)
    for process in (raylet, *actors):
        process.kill()
    psutil.wait_procs(actors)
    cluster.remove_node(node, allow_graceful=False)


def executor(cluster: Any, **options: Any) -> RayExecutor:
    return RayExecutor(address=cluster.address, rules=Rules(straggling=1000.0), **options)


def test_teachers_of_all_needs_run_in_one_run_each_on_devices_of_its_own(cluster: Any, nodes: Any) -> None:
    nodes(gpus=4)
    pools = pool("cpu", 40), pool("half", 12, gpus=0.5), pool("one", 12, gpus=1), pool("four", 12, gpus=4)
    seen = list(executor(cluster).run(pools))
    assert all(isinstance(each, Seen) for each in seen)
    assert Counter(each.pool for each in seen) == {"cpu": 40, "half": 12, "one": 12, "four": 12}
    assert Counter((each.pool, each.task) for each in seen).most_common(1)[0][1] == 1
    devices = {name: {each.devices for each in seen if each.pool == name} for name in ("half", "one", "four")}
    assert {tuple(sorted(found)) for found in devices["four"]} == {("0", "1", "2", "3")}
    assert len({each.process for each in seen if each.pool == "four"}) == 1
    assert all(len(found) == 1 for found in devices["one"] | devices["half"])
    processes = {each.process for each in seen}
    assert len({(each.process, each.pool) for each in seen}) == len(processes)
    # The four were held by one worker; whoever needed one of them came after.
    assert max(i for i, each in enumerate(seen) if each.pool == "four") < min(
        i for i, each in enumerate(seen) if each.pool in ("half", "one")
    )


def test_a_worker_that_needs_four_does_not_take_two_here_and_two_there(cluster: Any, nodes: Any) -> None:
    nodes(gpus=2)
    nodes(gpus=2)
    seen = list(executor(cluster, start_timeout=1.0).run([pool("four", 4, gpus=4), pool("cpu", 6)]))
    assert sum(isinstance(each, Seen) for each in seen) == 6
    (failure,) = (each for each in seen if isinstance(each, Failure))
    assert failure.task is None
    assert "four needs 4 GPU, cluster has 4 GPU, at most 2 GPU on a node" in str(failure.error)


def test_a_lost_node_with_spare_capacity_costs_nothing_but_time(cluster: Any, nodes: Any) -> None:
    lost, spare = nodes(gpus=1), nodes(gpus=1)
    reports = executor(cluster).run([pool("one", 60, gpus=1)])
    seen = [next(reports)]
    lose(cluster, lost)
    seen += reports
    assert sorted(each.task for each in seen) == list(range(60))
    assert spare.node_id in {each.node for each in seen}


def test_a_lost_node_without_spare_capacity_ends_in_an_error_that_names_it(cluster: Any, nodes: Any) -> None:
    lost = nodes(gpus=1)
    running = executor(cluster, start_timeout=3.0)
    reports = running.run([pool("one", 60, gpus=1)])
    first = next(reports)
    lose(cluster, lost)
    *others, failure = reports
    assert isinstance(failure, Failure) and failure.task is None
    told = (
        f"one needs 1 GPU, cluster has 0 GPU (1 GPU lost with node {lost.node_ip_address} ({first.node[:8]}))"
    )
    assert told in str(failure.error)
    assert len(others) < 59 and running.state().lost == 1


def test_nodes_that_join_are_used(cluster: Any, nodes: Any) -> None:
    reports = executor(cluster, start_timeout=120.0).run([pool("one", 30, gpus=1), pool("cpu", 30)])
    seen = [next(reports)]
    assert seen[0].pool == "cpu"
    nodes(gpus=1)
    seen += reports
    assert Counter(each.pool for each in seen) == {"one": 30, "cpu": 30}
