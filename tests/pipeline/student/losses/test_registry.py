from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from softcask.pipeline.student.losses.registry import LOSSES
from softcask.storage_schemas.errors import ConfigError, UnknownKind

SOFT = [kind for kind in LOSSES.known() if kind != "hard"]


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownKind,
        match="unknown loss kind 'mse'; known kinds: compressed_kl, distillation, hard, jensen_shannon, "
        "logit_matching, reverse_kl",
    ):
        LOSSES.get("mse")


@pytest.mark.parametrize("kind", SOFT)
@pytest.mark.parametrize("targets", [None, "p"])
def test_targets_that_are_none_of_its_are_refused_by_name(kind: str, targets: Any) -> None:
    with pytest.raises(TypeError, match=f"the loss {kind} learns from .*; found (NoneType|str)"):
        LOSSES.get(kind)(kind=kind).compute(torch.zeros(2, 3), targets, torch.tensor([0, 1]), 1.0)


@pytest.mark.parametrize("kind", SOFT)
def test_smoothing_labels_that_have_no_weight_is_a_mistake(kind: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match="smooths hard labels"):
        LOSSES.get(kind).model_validate({"label_smoothing": 0.1, "hard_label_weight": 0.0})


def test_options_of_all_losses_are_checked_without_torch() -> None:
    code = (
        "import sys\n"
        "from softcask.pipeline.student.losses.registry import LOSSES\n"
        "[LOSSES.get(kind)() for kind in LOSSES.known()]\n"
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
