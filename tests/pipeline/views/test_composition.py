"""Steps one after another, partners, and what a store may bring about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.pipeline.views.contract import draws, names

from softcask.pipeline.views import AugmentationOptions, Views, ViewsOptions
from softcask.pipeline.views.flip import FlipOptions
from softcask.pipeline.views.mixup import MixupOptions
from softcask.pipeline.views.pixel_shift import PixelShiftOptions
from softcask.storage_schemas.errors import ConfigError, StoreError
from softcask.storage_schemas.views import ViewManifest

STEPS = [{"kind": "flip"}, {"kind": "pixel_shift", "pixels": 1}, {"kind": "mixup"}, {"kind": "flip"}]


def views(*steps: dict[str, Any], seed: int = 5) -> Views:
    return Views.of(AugmentationOptions.model_validate({"seed": seed, "steps": list(steps)}))


def rows(count: int = 30) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 6)).astype(np.uint8)


def manifest(*steps: dict[str, Any]) -> ViewManifest:
    return ViewManifest(
        view=1,
        seed=5,
        steps=steps,
        row_shape=(8, 6),
        row_dtype="uint8",
        segment="s0000",
        probe=(),
        recorded={},
    )


def test_view_0_is_the_rows_as_they_are() -> None:
    assert views(*STEPS).apply(rows(), names(30), 0).inputs_B is not None
    np.testing.assert_array_equal(views(*STEPS).apply(rows(), names(30), 0).inputs_B, rows())


def test_steps_come_one_after_another_and_each_draws_for_itself() -> None:
    ids, inputs = names(30), rows()
    found = views({"kind": "flip"}, {"kind": "pixel_shift"}).apply(inputs, ids, 3).inputs_B
    flipped = FlipOptions().apply(inputs, draws(ids, seed=5, view=3, step=0))
    expected = PixelShiftOptions().apply(flipped, draws(ids, seed=5, view=3, step=1))
    np.testing.assert_array_equal(found, expected)


def test_partners_go_through_the_steps_before_and_the_mixed_row_through_those_after() -> None:
    ids, inputs = names(30), rows()
    others, other_ids = np.roll(inputs, -4, axis=0), ids[4:] + ids[:4]
    found = views({"kind": "flip"}, {"kind": "mixup"}, {"kind": "pixel_shift"}).apply(
        inputs, ids, 2, partners=(others, other_ids)
    )
    mine = FlipOptions().apply(inputs, draws(ids, seed=5, view=2, step=0))
    partners = FlipOptions().apply(others, draws(other_ids, seed=5, view=2, step=0))
    mixed, share_B = MixupOptions().mix(mine, partners, draws(ids, seed=5, view=2, step=1))
    expected = PixelShiftOptions().apply(mixed, draws(ids, seed=5, view=2, step=2))
    np.testing.assert_array_equal(found.inputs_B, expected)
    assert found.share_B is not None
    np.testing.assert_array_equal(found.share_B, share_B)


def test_a_partner_is_another_row_and_any_other_is_as_likely() -> None:
    ids, rank_B = names(6000), np.tile(np.arange(5), 1200)
    partner_B = views({"kind": "mixup"}).partners(ids, rank_B, 5, 1)
    assert (partner_B != rank_B).all()
    counts = np.bincount((partner_B - rank_B) % 5, minlength=5)[1:]
    assert ((counts - 1500) ** 2 / 1500).sum() < 30.7  # chi-square of 3 degrees of freedom, one in a million
    assert views({"kind": "mixup"}).partners(["a"], np.array([0]), 1, 1).tolist() == [0]


def test_mixing_without_partners_is_refused() -> None:
    with pytest.raises(ConfigError, match="their partners were not given"):
        views({"kind": "mixup"}).apply(rows(), names(30), 1)


def test_a_section_is_checked_as_a_whole() -> None:
    with pytest.raises(ValidationError, match="2 steps mix rows"):
        AugmentationOptions.model_validate({"steps": [{"kind": "mixup"}, {"kind": "cutmix"}]})
    with pytest.raises(ValidationError, match="known kinds: callable, cutmix, flip"):
        AugmentationOptions.model_validate({"steps": [{"kind": "rotate"}]})
    with pytest.raises(ValidationError):
        AugmentationOptions.model_validate({"steps": []})
    with pytest.raises(ValidationError):
        ViewsOptions.model_validate({"count": 10_000, "steps": STEPS})


def test_a_store_gives_its_views_back() -> None:
    made = views(*STEPS)
    pinned = manifest(*made.facts()["steps"])
    assert Views.of_manifest(ViewManifest.from_bytes(pinned.to_bytes(), "views/v0001.json"), "here") == made


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            {"kind": "callable", "version": 1, "function": "os:system"},
            "'os:system'.*nothing that a store names",
        ),
        ({"kind": "torchvision", "version": 1, "transform": "a:b"}, "nothing that a store names is imported"),
        ({"kind": "somebody", "version": 1}, "none of softcask's own"),
        ({"version": 1}, "none of softcask's own"),
        ({"kind": "flip", "version": 2}, "version 2, this softcask has version 1"),
        ({"kind": "flip", "version": 1, "axis": 9}, "options that this softcask does not take"),
        ({"kind": "random_resized_crop", "version": 1, "height": 1 << 40, "width": 2}, "does not take"),
    ],
)
def test_a_store_brings_no_code_about(step: dict[str, Any], told: str) -> None:
    with pytest.raises(StoreError, match=told):
        Views.of_manifest(manifest(step), "here")
