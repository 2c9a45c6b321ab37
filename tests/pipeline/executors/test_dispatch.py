"""What a run does when workers, nodes and tasks fail, in virtual time on a made-up cluster."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from tests.pipeline.executors.made_up_cluster import MadeUpCluster, MadeUpWorker, pool, run

from softcask.pipeline.executors.base import Failure
from softcask.pipeline.executors.dispatch import Dispatcher
from softcask.pipeline.executors.queue import Rules
from softcask.storage_schemas.errors import StoreAccess, TeacherError

TWO_CPUS = {"n": {"CPU": 2.0}}


def times_ten(tasks: range) -> list[int]:
    return [task * 10 for task in tasks]


def test_every_task_is_done_once_and_no_worker_has_more_than_it_may() -> None:
    most: Counter[int] = Counter()

    def seconds(worker: MadeUpWorker, task: int) -> float:
        under_way = len(worker.seen) - done[worker.number]
        most[worker.number] = max(most[worker.number], under_way)
        return 1.0

    done: Counter[int] = Counter()
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    dispatcher = Dispatcher([pool("p", range(40))], cluster, Rules(in_flight=3))
    reports = []
    for report in dispatcher.reports():
        reports.append(report)
        done.update(worker.number for worker in cluster.workers if report // 10 in worker.seen)
    assert sorted(reports) == times_ten(range(40))
    assert dispatcher.workers == 2
    assert set(most.values()) == {3}
    assert not cluster.at_work()


def test_tasks_are_never_listed() -> None:
    class Lazy:
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, index: int) -> int:
            given.append(index)
            if index >= 10**6:
                raise IndexError
            return index

    given: list[int] = []
    cluster = MadeUpCluster(dict(TWO_CPUS))
    reports = Dispatcher([pool("p", Lazy())], cluster, Rules()).reports()  # type: ignore[arg-type]
    for _ in range(5):
        next(reports)
    assert len(given) <= 5 + 2 * 2
    reports.close()  # type: ignore[attr-defined]
    assert not cluster.at_work()


def test_a_task_that_failed_is_run_again_on_another_worker() -> None:
    failed: list[int] = []

    def seconds(worker: MadeUpWorker, task: int) -> float | Exception:
        if task == 5 and not failed:
            failed.append(worker.number)
            return TeacherError("unit 5 is bad")
        return 1.0

    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    outcome = run(cluster, pool("p", range(12)))
    assert sorted(outcome.reports) == times_ten(range(12)) and not outcome.failures
    (other,) = {worker.number for worker in cluster.workers if 5 in worker.seen} - set(failed)
    assert other != failed[0]
    assert outcome.dispatcher.state().retries == 1


def test_a_task_that_always_fails_is_given_up_after_its_retries_and_all_else_is_done() -> None:
    cluster = MadeUpCluster(
        dict(TWO_CPUS), seconds=lambda _, task: TeacherError(f"unit {task} is bad") if task == 5 else 1.0
    )
    outcome = run(cluster, pool("p", range(12)), max_retries=2)
    assert sorted(outcome.reports) == [task * 10 for task in range(12) if task != 5]
    (failure,) = outcome.failures
    assert (failure.task, failure.attempts, str(failure.error)) == (5, 3, "unit 5 is bad")
    assert sum(worker.seen.count(5) for worker in cluster.workers) == 3


def test_an_error_that_every_task_has_ends_its_pool_early_and_others_go_on() -> None:
    def seconds(worker: MadeUpWorker, task: int) -> float | Exception:
        return TeacherError(f"unit {task}: 7 classes") if worker.pool.name == "bad" else 1.0

    cluster = MadeUpCluster({"n": {"CPU": 4.0}}, seconds=seconds)
    outcome = run(cluster, pool("bad", range(10**6)), pool("good", range(20)))
    assert sorted(outcome.reports) == times_ten(range(20))
    (failure,) = outcome.failures
    assert (failure.pool, failure.task) == ("bad", None) and isinstance(failure.error, TeacherError)
    assert sum(len(worker.seen) for worker in cluster.workers if worker.pool.name == "bad") < 20


def full_between(start: float, stop: float, cluster: MadeUpCluster) -> Any:
    full = StoreAccess("no space left to write s0000")
    return lambda *_: full if start <= cluster.clock < stop else 1.0


def test_while_all_fail_nothing_new_is_begun_and_a_trouble_that_passes_costs_nothing() -> None:
    cluster = MadeUpCluster({"n": {"CPU": 8.0}})
    cluster.seconds = full_between(10.0, 15.0, cluster)
    outcome = run(cluster, pool("p", range(400)))
    assert sorted(outcome.reports) == times_ten(range(400)) and not outcome.failures
    begun = sum(len(worker.seen) for worker in cluster.workers)
    # Two in flight on each of eight workers failed; then only some of those were tried until it was over.
    assert begun - 400 <= 8 * 2 + 8 * 2


def test_a_store_that_takes_nothing_any_more_ends_its_pool() -> None:
    cluster = MadeUpCluster({"n": {"CPU": 8.0}})
    cluster.seconds = full_between(10.0, 1e9, cluster)
    outcome = run(cluster, pool("p", range(10**6)))
    *_, failure = outcome.failures
    assert failure.task is None and "no space left" in str(failure.error)
    assert sum(len(worker.seen) for worker in cluster.workers) - len(outcome.reports) <= 8 * 2 * 4


def test_a_task_that_takes_its_worker_down_takes_no_other_with_it_twice() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=lambda _, task: None if task == 4 else 1.0)
    outcome = run(cluster, pool("p", range(12)), max_retries=2)
    assert sorted(outcome.reports) == [task * 10 for task in range(12) if task != 4]
    (failure,) = outcome.failures
    assert (failure.task, failure.attempts) == (4, 3)
    met_it = [worker for worker in cluster.workers if 4 in worker.seen]
    assert len(met_it) == 3
    # Only the first of them had other tasks beside it.
    assert [len(worker.seen[worker.seen.index(4) :]) for worker in met_it[1:]] == [1, 1]


def test_workers_that_are_lost_without_a_task_done_between_end_the_pool() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=lambda *_: None)
    outcome = run(cluster, pool("p", range(10**6)), max_retries=1)
    assert not outcome.reports
    pool_failure = outcome.failures[-1]
    assert pool_failure.task is None
    assert "workers of p were lost in a row" in str(pool_failure.error)
    assert len(cluster.workers) <= 12


def test_a_lost_node_costs_its_tasks_no_attempt_and_the_others_go_on() -> None:
    cluster = MadeUpCluster({"a": {"CPU": 2.0}, "b": {"CPU": 2.0}})
    for lost in ("a", "c", "d"):
        cluster.at({"a": 3.2, "c": 6.2, "d": 9.2}[lost], lambda lost=lost: cluster.lose(lost))
    cluster.at(4.0, lambda: cluster.join("c", CPU=2.0))
    cluster.at(7.0, lambda: cluster.join("d", CPU=2.0))
    outcome = run(cluster, pool("p", range(60)), max_retries=0)
    assert sorted(outcome.reports) == times_ten(range(60)) and not outcome.failures
    assert outcome.dispatcher.state().lost == 6
    # What was in flight, and no more, was begun twice: three nodes with two workers of two tasks.
    begun = Counter(task for worker in cluster.workers for task in worker.seen)
    assert sum(begun.values()) - 60 <= 3 * 2 * 2


def test_nodes_that_join_get_workers() -> None:
    cluster = MadeUpCluster({"a": {"CPU": 1.0}})
    cluster.at(5.0, lambda: cluster.join("b", CPU=3.0))
    outcome = run(cluster, pool("p", range(60)))
    assert outcome.dispatcher.workers == 4
    assert cluster.clock < 30


def test_all_workers_that_are_stated_are_asked_for_so_that_a_cluster_may_grow() -> None:
    cluster = MadeUpCluster({"a": {"CPU": 1.0}})
    dispatcher = Dispatcher([pool("p", range(60))], cluster, Rules(), most=5)
    reports = dispatcher.reports()
    next(reports)
    assert len(cluster.workers) == 5
    assert dispatcher.state().starting == 4
    reports.close()  # type: ignore[attr-defined]


def test_pools_run_at_the_same_time_and_who_needs_a_gpu_gets_its_cpu_first() -> None:
    cluster = MadeUpCluster({"n": {"CPU": 4.0, "GPU": 1.0}})
    seen: set[tuple[int, int, int]] = set()
    pools = pool("cpu", range(40)), pool("whole", range(100, 120), gpus=1), pool("other", range(200, 210))
    dispatcher = Dispatcher(pools, cluster, Rules())
    for _ in dispatcher.reports():
        seen.add(tuple(len(cluster.at_work(name)) for name in ("cpu", "whole", "other")))  # type: ignore[arg-type]
    assert (2, 1, 1) in seen or (1, 1, 2) in seen
    assert not cluster.at_work()


def test_a_pool_that_cannot_start_while_another_holds_the_gpus_waits_and_then_starts() -> None:
    cluster = MadeUpCluster({"n": {"CPU": 8.0, "GPU": 4.0}})
    order: list[str] = []
    pools = (
        pool("cpu", range(300, 330)),
        pool("one", range(12), gpus=1),
        pool("four", range(100, 130), gpus=4),
    )
    dispatcher = Dispatcher(pools, cluster, Rules(), patience=5)
    told = set()
    for report in dispatcher.reports():
        order.append({0: "one", 1: "four", 3: "cpu"}[report // 1000])
        told |= set(dispatcher.state().waiting)
    assert Counter(order) == {"cpu": 30, "one": 12, "four": 30}
    last_four = len(order) - 1 - order[::-1].index("four")
    assert "one" not in order[:last_four] and "cpu" in order[:last_four]
    # It waits longer than its patience, because that runs only for what the cluster does not have.
    held = "one needs 1 CPU and 1 GPU, and has found no room yet (cluster has 8 CPU and 4 GPU); "
    assert f"{held}it starts when four leaves room" in told


def test_shares_of_a_gpu_are_of_one_device() -> None:
    cluster = MadeUpCluster({"n": {"CPU": 8.0, "GPU": 2.0}})
    outcome = run(cluster, pool("p", range(40), gpus=0.6))
    assert outcome.dispatcher.workers == 2


def test_room_that_others_hold_is_waited_for_no_shorter_than_a_process_may_take_to_start() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS))
    other = pool("another job", range(1), cpus=2)
    cluster.start(other, 1)
    dispatcher = Dispatcher([pool("X", range(9))], cluster, Rules(), patience=1.0)
    (failure,) = dispatcher.reports()
    assert "X needs 1 CPU and 0 GPU, and has found no room yet (cluster has 2 CPU" in str(failure.error)
    assert 120 <= cluster.clock <= 125


def test_lost_capacity_is_named_waited_for_and_then_an_error(caplog: pytest.LogCaptureFixture) -> None:
    cluster = MadeUpCluster({"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}})
    cluster.at(5.0, lambda: cluster.lose("b"))
    dispatcher = Dispatcher([pool("X", range(1000), gpus=1)], cluster, Rules(), patience=120)
    with caplog.at_level(logging.WARNING):
        *_, failure = dispatcher.reports()
    assert isinstance(failure, Failure) and failure.task is None
    assert str(failure.error).startswith(
        "X needs 1 GPU, cluster has 0 GPU (1 GPU lost with node b); waited 120 s"
    )
    assert 120 <= cluster.clock <= 130
    told = [record.message for record in caplog.records if "waiting" in record.message]
    assert any("X needs 1 GPU, cluster has 0 GPU (1 GPU lost with node b); waiting" in line for line in told)
    assert 3 <= len(told) <= 7  # not every second


def test_capacity_that_comes_back_in_time_is_used() -> None:
    cluster = MadeUpCluster({"b": {"CPU": 2.0, "GPU": 1.0}})
    cluster.at(5.0, lambda: cluster.lose("b"))
    cluster.at(100.0, lambda: cluster.join("c", CPU=2.0, GPU=1.0))
    outcome = run(cluster, pool("X", range(50), gpus=1))
    assert sorted(outcome.reports) == times_ten(range(50)) and not outcome.failures


def test_a_cluster_that_cannot_grow_is_not_waited_for() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), grows=False)
    outcome = run(cluster, pool("X", range(50), gpus=4), pool("Y", range(4)))
    assert sorted(outcome.reports) == times_ten(range(4))
    assert "X needs 4 GPU, cluster has 0 GPU; waited 0 s" in str(outcome.failures[0].error)


def test_four_gpus_on_two_nodes_are_not_four_on_one() -> None:
    cluster = MadeUpCluster({name: {"CPU": 2.0, "GPU": 2.0} for name in "ab"}, grows=False)
    outcome = run(cluster, pool("X", range(50), gpus=4))
    assert "X needs 4 GPU, cluster has 4 GPU, at most 2 GPU on a node" in str(outcome.failures[0].error)


def test_after_a_loss_pools_share_what_is_left_and_none_starves() -> None:
    cluster = MadeUpCluster({"a": {"CPU": 4.0}, "b": {"CPU": 4.0, "GPU": 4.0}})
    cluster.at(3.2, lambda: cluster.lose("a"))
    cluster.at(3.2, lambda: cluster.lose("b"))
    cluster.at(3.2, lambda: cluster.join("c", CPU=4.0, GPU=1.0))
    outcome = run(cluster, pool("cpu", range(200)), pool("gpu", range(1000, 1020), gpus=1))
    assert len(outcome.reports) == 220
    # The GPU was used while tasks without were left: it is not the last to be done.
    assert outcome.reports[-1] < 10_000


def test_a_task_past_its_deadline_costs_its_worker_and_is_run_again() -> None:
    begun: Counter[int] = Counter()

    def seconds(worker: MadeUpWorker, task: int) -> float:
        begun[task] += 1
        return 10_000.0 if task == 3 and begun[3] == 1 else 1.0

    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    outcome = run(cluster, pool("p", range(12)), deadline=30.0, straggling=1000.0)
    assert sorted(outcome.reports) == times_ten(range(12))
    assert begun[3] == 2 and cluster.clock < 60


def test_a_deadline_follows_from_the_median_once_there_is_one() -> None:
    def seconds(worker: MadeUpWorker, task: int) -> float:
        return 10_000.0 if task == 30 and worker.number < 2 else 2.0

    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    outcome = run(
        cluster, pool("p", range(60)), deadline_factor=20.0, shortest_deadline=10.0, straggling=1000.0
    )
    assert len(outcome.reports) == 60
    assert cluster.clock < 2 * 60 + 40 + 10


def test_a_task_whose_deadline_always_passes_is_given_up() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=lambda _, task: 10_000.0 if task == 3 else 1.0)
    outcome = run(cluster, pool("p", range(12)), deadline=30.0, straggling=1000.0, max_retries=1)
    (failure,) = outcome.failures
    assert (failure.task, failure.attempts) == (3, 2)
    assert "3 of p took longer than its deadline of 30 s" in str(failure.error)
    assert len(outcome.reports) == 11


def test_stragglers_are_run_twice_near_the_end_and_the_first_wins() -> None:
    begun: Counter[int] = Counter()

    def seconds(worker: MadeUpWorker, task: int) -> float:
        begun[task] += 1
        return 500.0 if worker.number == 0 and task >= 36 else 1.0

    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    outcome = run(cluster, pool("p", range(40)))
    assert sorted(outcome.reports) == times_ten(range(40))
    assert cluster.clock < 60
    assert outcome.dispatcher.state().done == 40
    assert sum(count - 1 for count in begun.values()) == 2  # the one that straggled and the one behind it


def test_no_task_is_run_twice_while_there_is_other_work() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=lambda w, task: 50.0 if task == 1 else 1.0)
    dispatcher = Dispatcher([pool("p", range(200))], cluster, Rules())
    for report in dispatcher.reports():
        if report == 1500:
            break
    begun = Counter(task for worker in cluster.workers for task in worker.seen)
    assert max(begun.values()) == 1


def test_a_worker_that_fails_at_all_it_is_given_is_replaced_while_others_do_well() -> None:
    def seconds(worker: MadeUpWorker, task: int) -> float | Exception:
        return TeacherError("CUDA error: device-side assert") if worker.number == 0 and task > 6 else 1.0

    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=seconds)
    outcome = run(cluster, pool("p", range(200)))
    assert sorted(outcome.reports) == times_ten(range(200)) and not outcome.failures
    assert len(cluster.workers) == 3


def test_a_worker_that_cannot_be_built_ends_its_pool_with_its_own_error() -> None:
    def build(worker: MadeUpWorker) -> float | Exception:
        return TeacherError("weights are missing") if worker.pool.name == "bad" else 1.0

    cluster = MadeUpCluster({"n": {"CPU": 4.0}}, build=build)
    outcome = run(cluster, pool("bad", range(1000)), pool("good", range(9)))
    (failure,) = outcome.failures
    assert failure.task is None and str(failure.error) == "weights are missing"
    assert sorted(outcome.reports) == times_ten(range(9))


def test_a_worker_that_cannot_be_built_on_one_node_is_in_nobodys_way() -> None:
    def build(worker: MadeUpWorker) -> float | Exception:
        return TeacherError("no CUDA here") if worker.node == "b" else 1.0

    cluster = MadeUpCluster({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}, build=build)
    outcome = run(cluster, pool("p", range(200)))
    assert sorted(outcome.reports) == times_ten(range(200)) and not outcome.failures
    assert len(cluster.workers) < 12  # it is asked for again, but ever more seldom


def test_who_breaks_off_leaves_no_worker_and_lets_them_finish_what_they_write() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS))

    def watch() -> None:
        for report in Dispatcher([pool("p", range(100))], cluster, Rules()).reports():
            if report == 100:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch()
    assert not cluster.at_work()


def test_an_interruption_while_nothing_happens_closes_workers_that_have_something() -> None:
    cluster = MadeUpCluster(dict(TWO_CPUS), seconds=lambda *_: 100.0)

    def interrupt() -> Any:
        raise KeyboardInterrupt

    cluster.at(7.0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(Dispatcher([pool("p", range(100))], cluster, Rules()).reports())
    assert len(cluster.closed) == 2 and not cluster.at_work()
