"""Which of how many processes this one is: as torch.distributed or who launched them says."""

from __future__ import annotations

import os

import torch.distributed

from softcask.storage_schemas.errors import StudentError


def place_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of processes that train together.

    Args:
        rank: From 0; None asks torch.distributed, or else RANK of the environment, as torchrun sets it.
        world_size: Processes; None asks the same, or else WORLD_SIZE.

    Raises:
        StudentError: One is given without the other, or the rank is none of them.
    """
    if (rank is None) != (world_size is None):
        raise StudentError(f"rank is {rank} and world_size {world_size}: give both, or neither")
    if rank is None or world_size is None:
        rank, world_size = _found()
    if not 0 <= rank < world_size:
        raise StudentError(f"rank {rank} of {world_size} processes; expected 0 to {world_size - 1}")
    return rank, world_size


def _found() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    found = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE")]
    if None in found:
        return 0, 1
    try:
        rank, world_size = (int(value or "") for value in found)
    except ValueError as error:
        raise StudentError(
            f"the environment says RANK={found[0]} and WORLD_SIZE={found[1]}, expected two numbers; unset "
            "them, or give rank and world_size"
        ) from error
    return rank, world_size
