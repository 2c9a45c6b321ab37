"""How many workers fit a cluster, and what is said where none does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.executors.made_up_cluster import pool

from softcask.pipeline.executors.capacity import Needs, allot, fits, lacking


def needs(cpus: float = 1, gpus: float = 0, memory: float = 0) -> Needs:
    return Needs(cpus=cpus, gpus=gpus, memory=memory)


@pytest.mark.parametrize(
    ("node", "wanted", "count"),
    [
        ({"CPU": 4}, needs(), 4),
        ({"CPU": 4}, needs(cpus=3), 1),
        ({"CPU": 8, "GPU": 2}, needs(gpus=1), 2),
        ({"CPU": 8, "GPU": 2}, needs(gpus=0.5), 4),
        ({"CPU": 8, "GPU": 2}, needs(gpus=0.6), 2),
        ({"CPU": 8, "GPU": 1}, needs(gpus=0.1), 8),
        ({"CPU": 8, "GPU": 7}, needs(gpus=2), 3),
        ({"CPU": 8}, needs(gpus=0.1), 0),
        ({"CPU": 8, "memory": 10e9}, needs(memory=4e9), 2),
    ],
)
def test_as_many_workers_are_allotted_as_fit_one_node(
    node: dict[str, float], wanted: Needs, count: int
) -> None:
    assert allot({"n": node}, [(wanted, 100)]) == [count]
    assert fits({"n": node}, wanted) == (count > 0)


def test_who_needs_a_gpu_comes_before_who_needs_none_and_then_all_take_turns() -> None:
    node = {"CPU": 6.0, "GPU": 2.0}
    assert allot({"n": node}, [(needs(), 100), (needs(gpus=1), 100), (needs(), 1)]) == [3, 2, 1]


def test_four_gpus_are_taken_before_one_is() -> None:
    nodes = {"a": {"CPU": 4.0, "GPU": 4.0}, "b": {"CPU": 4.0, "GPU": 2.0}}
    assert allot(nodes, [(needs(gpus=1), 100), (needs(gpus=4), 100)]) == [2, 1]


@given(
    nodes=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=5),
    wanted=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([0, 0.25, 0.5, 1, 2]), st.integers(0, 9)), max_size=4
    ),
)
def test_what_is_allotted_never_exceeds_what_there_is_nor_what_is_wanted(
    nodes: list[tuple[int, int]], wanted: list[tuple[int, float, int]]
) -> None:
    cluster = {str(i): {"CPU": float(cpus), "GPU": float(gpus)} for i, (cpus, gpus) in enumerate(nodes)}
    counts = allot(cluster, [(needs(cpus, gpus), most) for cpus, gpus, most in wanted])
    assert all(count <= most for count, (_, _, most) in zip(counts, wanted, strict=True))
    for place, total in ((0, sum(cpus for cpus, _ in nodes)), (1, sum(gpus for _, gpus in nodes))):
        used = sum(count * each[place] for count, each in zip(counts, wanted, strict=True))
        assert used <= total


def test_what_is_missing_is_said_with_what_was_lost() -> None:
    cluster, lost = {"a": {"CPU": 8.0}}, {"10.0.0.3": {"CPU": 8.0, "GPU": 1.0}}
    assert lacking(cluster, lost, needs(gpus=1)) == "1 GPU, cluster has 0 GPU (1 GPU lost with node 10.0.0.3)"
    assert lacking(cluster, {}, needs(cpus=9)) == "9 CPU, cluster has 8 CPU"
    apart = {"a": {"CPU": 8.0}, "b": {"CPU": 1.0, "GPU": 1.0}}
    assert lacking(apart, {}, needs(cpus=2, gpus=1)).startswith(
        "2 CPU and 1 GPU on one node, and no node has"
    )


def test_needs_are_those_of_a_pool() -> None:
    assert str(Needs.of(pool("p", range(3), cpus=2, gpus=0.5))) == "2 CPU and 0.5 GPU"
    assert str(needs(memory=2**31)) == "1 CPU and 0 GPU and 2.0 GiB"
