"""The same numbers from tensors as from arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.pipeline.targets.specialists.cases import Floats, random_members

from softcask.pipeline.targets.specialists import kl, within_sets
from softcask.pipeline.targets.specialists.members import Members

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def as_tensors(members: Members[Floats], device: str) -> Members[torch.Tensor]:
    return Members(
        sets=members.sets,
        specialists=tuple(torch.from_numpy(said).to(device) for said in members.specialists),
        generalist=None if members.generalist is None else torch.from_numpy(members.generalist).to(device),
        active_BM=None if members.active_BM is None else torch.from_numpy(members.active_BM).to(device),
        weights=members.weights,
        generalist_weight=members.generalist_weight,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("generalist", [False, True], ids=["alone", "generalist"])
@pytest.mark.parametrize("overlapping", [False, True], ids=["disjoint", "overlapping"])
def test_tensors_are_merged_as_arrays_are(device: str, generalist: bool, overlapping: bool) -> None:
    for seed in range(100, 115):
        members = random_members(seed, generalist=generalist, overlapping=overlapping)
        found, expected = kl.merge(as_tensors(members, device)), kl.merge(members)
        assert found.log_q_BC.device.type == device and found.log_q_BC.dtype == torch.float64
        np.testing.assert_allclose(
            np.exp(found.log_q_BC.cpu().numpy()), np.exp(expected.log_q_BC), rtol=0, atol=1e-5
        )
        assert float(found.gap_B.max()) <= 1e-9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rule", ["arithmetic", "geometric"])
def test_tensors_keep_their_sets_mass_as_arrays_do(device: str, rule: str) -> None:
    members = random_members(3, generalist=True, overlapping=True)
    found = getattr(within_sets, rule)(as_tensors(members, device))
    expected = getattr(within_sets, rule)(members)
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=1e-12)
