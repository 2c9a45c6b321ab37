"""Functions and transforms of a user's own: replayed by generator, blamed by name."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.mended_torchvision import mend
from tests.pipeline.views.contract import StepContract, draws, names
from tests.worlds import TESTS

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.pipeline.views.callable_kind import CallableOptions
from softcask.pipeline.views.torch_random import SeededTorch
from softcask.pipeline.views.torchvision_kind import TorchvisionOptions
from softcask.storage_schemas.errors import FactoryError, TransferSetError


@pytest.fixture(autouse=True)
def _path() -> None:
    add_to_path([str(TESTS)])


class TestCallable(StepContract):
    def step(self) -> CallableOptions:
        return CallableOptions(function="toy_views:jitter", kwargs={"scale": 0.5}, code_version="1")

    def rows(self) -> NDArray[Any]:
        return np.random.default_rng(0).normal(size=(40, 6, 4)).astype(np.float32)

    def test_text_is_given_and_taken_as_strings(self) -> None:
        rows = np.array(["one two three", "four five"], TEXT)
        made = CallableOptions(function="toy_views:stammer").apply(rows, draws(names(2)))
        assert made.dtype == TEXT
        assert [len(text.split()) for text in made.tolist()] == [4, 3]

    def test_what_fails_is_named_with_its_row(self) -> None:
        with pytest.raises(FactoryError, match="toy_views:broken raised ValueError on row 'row-0': no such"):
            CallableOptions(function="toy_views:broken").apply(self.rows(), draws(names()))
        with pytest.raises(TransferSetError, match=r"toy_views:ragged gave .*all rows of a view must be"):
            CallableOptions(function="toy_views:ragged").apply(self.rows(), draws(names()))
        with pytest.raises(FactoryError, match="did you mean 'jitter'"):
            CallableOptions(function="toy_views:jiter").apply(self.rows(), draws(names()))

    def test_the_source_is_recorded_and_does_not_count(self) -> None:
        step = self.step()
        assert step.recorded()["toy_views:jitter"].startswith("sha256:")
        assert "sha256" not in str(step.facts())


class TestTransform(StepContract):
    def step(self) -> TorchvisionOptions:
        return TorchvisionOptions(transform="toy_views:noise", kwargs={"scale": 3.0})

    def test_a_row_is_turned_for_the_transform_and_back(self) -> None:
        rows = self.rows()
        plain = TorchvisionOptions(transform="toy_views:noise", kwargs={"scale": 0.0})
        made = plain.apply(rows, draws(names()))
        assert (made.shape, made.dtype) == (rows.shape, np.float32)
        for row, new in zip(rows.astype(np.float32), made, strict=True):
            below = new - row, new - row[:, ::-1]
            # All of a row's numbers are raised by one number, drawn below 1.
            assert any(np.ptp(each) < 1e-4 and 0 <= each.min() < 1 for each in below)

    def test_grey_rows_gain_a_channel_for_the_transform_alone(self) -> None:
        grey = self.rows()[..., 0]
        assert self.step().apply(grey, draws(names())).shape == grey.shape

    def test_what_makes_no_transform_or_cannot_be_replayed_is_refused(self) -> None:
        with pytest.raises(FactoryError, match="made a int, expected a transform"):
            TorchvisionOptions(transform="toy_views:number").apply(self.rows(), draws(names()))
        with pytest.raises(FactoryError, match="dropout draws random numbers and takes no generator"):
            TorchvisionOptions(transform="toy_views:dropping").apply(self.rows(), draws(names()))


class TestTorchvision(StepContract):
    @pytest.fixture(autouse=True)
    def _torchvision(self) -> None:
        mend()
        pytest.importorskip("torchvision")

    def step(self) -> TorchvisionOptions:
        return TorchvisionOptions(transform="torchvision.transforms.v2:RandAugment", kwargs={"num_ops": 3})

    @pytest.mark.parametrize(
        ("name", "kwargs"),
        [
            ("RandomResizedCrop", {"size": [8, 8]}),
            ("ColorJitter", {"brightness": 0.4, "hue": 0.1}),
            ("RandomHorizontalFlip", {}),
            ("RandomErasing", {"p": 0.9}),
            ("TrivialAugmentWide", {}),
            ("AugMix", {}),
            ("ElasticTransform", {"sigma": 0.5}),
            ("RandomPerspective", {}),
            ("GaussianBlur", {"kernel_size": 3}),
        ],
    )
    def test_random_transforms_are_replayed(self, name: str, kwargs: dict[str, Any]) -> None:
        step = TorchvisionOptions(transform=f"torchvision.transforms.v2:{name}", kwargs=kwargs)
        rows, ids = self.rows(), names()
        torch.manual_seed(1)
        first = step.apply(rows, draws(ids))
        torch.manual_seed(2)
        again = np.concatenate([step.apply(rows[r : r + 1], draws(ids[r : r + 1])) for r in range(len(ids))])
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, step.apply(rows, draws(ids, view=2)))


def everything() -> list[torch.Tensor]:
    return [
        torch.rand(3),
        torch.randn(2, 2),
        torch.randint(0, 100, (4,)),
        torch.randperm(9),
        torch.normal(0.0, 1.0, (3,)),
        torch.bernoulli(torch.full((9,), 0.5)),
        torch.multinomial(torch.ones(9), 3),
        torch.rand_like(torch.zeros(3)),
        torch.randn_like(torch.zeros(3)),
        torch.empty(3).uniform_(0, 2),
        torch.empty(3).normal_(),
        torch.zeros(3).random_(5),
        torch.zeros(3).exponential_(),
    ]


def test_all_that_draws_draws_by_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with SeededTorch(7):
        first = everything()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    with SeededTorch(7):
        second = everything()
    with SeededTorch(8):
        third = everything()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_a_thread_beside_it_goes_on_as_it_would() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    found: list[torch.Tensor] = []
    with SeededTorch(7):
        torch.rand(3)
        thread = threading.Thread(target=lambda: found.append(torch.rand(4)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_python_and_numpy_are_not_seeded() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with SeededTorch(7):
        torch.rand(1)
    assert random.random() == expected
