"""How many workers of each pool fit a cluster at one time, and what is missing where none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from softcask.pipeline.executors.base import Pool

Nodes = Mapping[str, Mapping[str, float]]
"""Name of a node -> its resources, used or not: `CPU`, `GPU`, `memory` in bytes."""

_ALMOST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Needs:
    """What one worker needs, all of it on one node. The larger, the harder to place."""

    gpus: float
    cpus: float
    memory: float

    @classmethod
    def of(cls, pool: Pool[Any, Any]) -> Needs:
        """Of a pool's workers."""
        return cls(gpus=pool.num_gpus, cpus=pool.num_cpus, memory=pool.memory_bytes)

    def __str__(self) -> str:
        memory = f" and {self.memory / 2**30:.1f} GiB" if self.memory else ""
        return f"{_amounts(self.cpus, self.gpus)}{memory}"


@dataclass(slots=True)
class _Room:
    """What is free of a node; a share of a GPU comes from one device."""

    cpus: float
    memory: float
    gpus: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> _Room:
        memory = resources.get("memory", float("inf"))
        return cls(resources.get("CPU", 0.0), memory, [1.0] * int(resources.get("GPU", 0)))

    def take(self, needs: Needs) -> bool:
        share = min(needs.gpus, 1.0)
        devices = [index for index, free in enumerate(self.gpus) if share and free + _ALMOST >= share]
        devices.sort(key=lambda index: self.gpus[index])  # the fullest that it fits
        count = -(-needs.gpus // 1) if needs.gpus else 0
        if self.cpus + _ALMOST < needs.cpus or self.memory < needs.memory or len(devices) < count:
            return False
        self.cpus -= needs.cpus
        self.memory -= needs.memory
        for index in devices[: int(count)]:
            self.gpus[index] -= share
        return True


def fits(nodes: Nodes, needs: Needs) -> bool:
    """Whether some node has all that a worker needs, if nothing else runs there."""
    return any(_Room.of(node).take(needs) for node in nodes.values())


def allot(nodes: Nodes, wanted: Sequence[tuple[Needs, int]]) -> list[int]:
    """How many workers of each pool there should be, so that all of these fit at one time.

    Pools take turns, one worker each, those that are hardest to place first: who needs a GPU also gets its
    CPUs before those who need nothing but CPUs.

    Args:
        nodes: The cluster.
        wanted: What a worker of each pool needs, and how many there may be.
    """
    rooms = [_Room.of(node) for node in nodes.values()]
    counts = [0] * len(wanted)
    first = [0] * len(wanted)  # rooms before that are full for this pool: they only get fuller
    open_ = sorted((index for index, (_, most) in enumerate(wanted) if most > 0), key=lambda i: wanted[i][0])
    open_.reverse()
    while open_:
        still = []
        for index in open_:
            needs, most = wanted[index]
            while first[index] < len(rooms) and not rooms[first[index]].take(needs):
                first[index] += 1
            if first[index] < len(rooms):
                counts[index] += 1
                if counts[index] < most:
                    still.append(index)
        open_ = still
    return counts


def has(nodes: Nodes) -> str:
    """What a cluster has in all."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes.values()) for name in ("CPU", "GPU"))
    return _amounts(cpus, gpus)


def lacking(nodes: Nodes, lost: Nodes, needs: Needs) -> str:
    """What of a worker's needs no node has: `1 GPU, cluster has 0 (1 lost with node 10.0.0.3)`."""
    wanted = {"GPU": needs.gpus, "CPU": needs.cpus, "memory": needs.memory}
    parts = [_shortage(nodes, lost, name, need) for name, need in wanted.items() if need]
    found = "; ".join(part for part in parts if part)
    return found or f"{needs} on one node, and no node has all of it (cluster has {has(nodes)})"


def _shortage(nodes: Nodes, lost: Nodes, name: str, need: float) -> str:
    amounts = [node.get(name, 0.0) for node in nodes.values()]
    most, total = max(amounts, default=0.0), sum(amounts)
    if most + _ALMOST >= need:
        return ""
    gone = [f"{_one(name, node[name])} lost with node {key}" for key, node in lost.items() if node.get(name)]
    among = "" if total == most else f", at most {_one(name, most)} on a node"
    behind = f" ({', '.join(gone)})" if gone else ""
    return f"{_one(name, need)}, cluster has {_one(name, total)}{among}{behind}"


def _one(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB of memory" if name == "memory" else f"{amount:g} {name}"


def _amounts(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU and {gpus:g} GPU"
