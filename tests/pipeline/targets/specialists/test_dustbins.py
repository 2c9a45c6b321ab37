"""Dustbins as trained and as the generalist has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.dustbins import generalists_dustbin, trained_dustbin
from softcask.pipeline.targets.specialists.kl import merge
from softcask.pipeline.targets.specialists.members import Members
from softcask.storage_schemas.errors import SpecialistsError


def test_a_specialist_with_the_generalists_logits_and_its_dustbin_changes_nothing() -> None:
    random = np.random.default_rng(2)
    z = random.normal(size=(6, 9)) * 5
    sets = ClassSets.of(9, [(2, 7, 1), (7, 0)])
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    specialists = tuple(generalists_dustbin(z[:, c], z, sets, number) for number, c in enumerate(sets))
    np.testing.assert_allclose(specialists[0][:, -1], p[:, [0, 3, 4, 5, 6, 8]].sum(-1), rtol=1e-12)
    merged = merge(Members(sets=sets, specialists=specialists, generalist=p))
    np.testing.assert_allclose(merged.log_q_BC, np.log(p), rtol=0, atol=1e-12)


def test_oversampling_is_taken_out_of_the_posterior_as_bayes_rule_has_it() -> None:
    # One special class of two in training, where the world has 1 in 100: odds change by 99.
    in_training = np.array([[0.8, 0.2]])
    odds = 0.8 / 0.2 / 99
    found = trained_dustbin(np.log(in_training), oversampling=99)
    np.testing.assert_allclose(found, [[odds / (1 + odds), 1 / (1 + odds)]], rtol=1e-12)


def test_without_oversampling_it_is_torchs_softmax() -> None:
    logits = torch.tensor([[1000.0, 999.0, -1000.0], [0.0, float("-inf"), 3.0]])
    found = trained_dustbin(logits)
    torch.testing.assert_close(found, logits.double().softmax(-1))


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(SpecialistsError, match="oversampling"):
        trained_dustbin(np.zeros((1, 2)), oversampling=ratio)
