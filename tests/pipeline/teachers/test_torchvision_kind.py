from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save_file
from tests.mended_torchvision import mend
from tests.pipeline.teachers.contract import TeacherContract

from softcask.pipeline.teachers.torchvision_kind import TorchvisionTeacherOptions
from softcask.storage_schemas.errors import TeacherError

mend()
torchvision = pytest.importorskip("torchvision")

MODEL = "shufflenet_v2_x0_5"
WEIGHTS = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1


def teacher(**more: Any) -> TorchvisionTeacherOptions:
    return TorchvisionTeacherOptions.model_validate({"name": "cnn-a", "model": MODEL, **more})


def photos(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def module(seed: int = 1, **kwargs: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torchvision.models.get_model(MODEL, **kwargs).eval()


def saved_weights(folder: Path, seed: int = 1, **kwargs: Any) -> str:
    path = folder / f"weights{seed}.safetensors"
    save_file(module(seed, **kwargs).state_dict(), path)
    return str(path)


class TestTorchvisionTeacherContract(TeacherContract):
    num_outputs = 5

    def options(self, folder: Path) -> TorchvisionTeacherOptions:
        return self._options(folder, 1)

    def retrained(self, folder: Path) -> TorchvisionTeacherOptions:
        return self._options(folder, 2)

    def inputs_B(self) -> NDArray[Any]:
        return photos(6, 48, 40, 3)

    def _options(self, folder: Path, seed: int) -> TorchvisionTeacherOptions:
        weights = saved_weights(folder, seed, num_classes=5)
        return teacher(weights=weights, kwargs={"num_classes": 5}, images={"size": [64, 64], "resize": 72})


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache, which holds the file of the model's weights; whoever asks a network fails."""

    def no_network(url: str, *_: Any, **__: Any) -> None:
        raise OSError(f"no network for {url}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(module().state_dict(), checkpoints / WEIGHTS.url.rpartition("/")[2])
    return checkpoints


@pytest.mark.parametrize("shape", [(224, 224), (300, 260)])
def test_logits_are_those_of_torchvisions_own_transforms(torch_home: Path, shape: tuple[int, int]) -> None:
    rows = photos(3, *shape, 3)
    images = torch.from_numpy(rows).permute(0, 3, 1, 2)
    transforms = WEIGHTS.transforms()
    if shape == (224, 224):  # of the model's size already
        mean, std = torch.tensor(transforms.mean)[:, None, None], torch.tensor(transforms.std)[:, None, None]
        prepared = (images / 255 - mean) / std
    else:
        prepared = transforms(images)
    with torch.inference_mode():
        expected = module()(prepared).numpy()
    logits_BC = teacher(weights="DEFAULT").load().logits(rows)
    assert np.abs(logits_BC - expected).max() < 0.02 * expected.std()


def test_weights_by_name_and_the_same_weights_as_a_file_are_one_teacher_but_for_what_is_said(
    torch_home: Path,
) -> None:
    by_name = teacher(weights="IMAGENET1K_V1").fingerprint_fields()
    by_file = teacher(weights=str(next(torch_home.iterdir()))).fingerprint_fields()
    assert by_file.pop("preprocessing_of") == "DEFAULT"
    assert by_name == by_file


def test_categories_pick_outputs(torch_home: Path) -> None:
    rows, options = photos(2, 224, 224, 3), teacher(weights="DEFAULT")
    picked = teacher(weights="DEFAULT", class_map=["goldfish", "tench", "tiger shark"]).load().logits(rows)
    np.testing.assert_array_equal(picked, options.load().logits(rows)[:, [1, 0, 3]])
    names = options.output_names()
    assert names is not None and len(names) == 1000 and names[0][0] == "tench"


def test_a_head_of_other_classes_has_no_names(tmp_path: Path) -> None:
    options = teacher(
        weights=saved_weights(tmp_path, num_classes=2), kwargs={"num_classes": 2}, class_map=["cat", "dog"]
    )
    with pytest.raises(TeacherError, match=r"'cnn-a': .*'cat', 'dog'.* does not name its outputs"):
        options.load()


def test_weights_that_are_not_in_the_cache_are_named_with_their_url_and_their_place(torch_home: Path) -> None:
    for more in ({}, {"local_files_only": True}):
        options = teacher(model="resnet18", weights="DEFAULT", **more)
        for ask in (options.load, options.fingerprint_fields):
            with pytest.raises(TeacherError) as caught:
                ask()
            for part in ("teacher 'cnn-a'", "resnet18-f37072fd.pth", str(torch_home), "TORCH_HOME"):
                assert part in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "parts"),
    [
        ({"model": "resnet19", "weights": "DEFAULT"}, ["has no classifier 'resnet19'", "'resnet18'"]),
        ({"model": "fcn_resnet50", "weights": "DEFAULT"}, ["has no classifier 'fcn_resnet50'"]),
        ({"weights": "IMAGENET1K_V9"}, [f"has no weights 'IMAGENET1K_V9' of {MODEL}", "'IMAGENET1K_V1'"]),
        ({"weights": "w.safetensors"}, ["there is no such file"]),
        ({"weights": "w.pt", "preprocessing_of": "V1"}, ["has no weights 'V1'"]),
        ({"weights": "w.pt", "kwargs": {"x": 1}}, [f"torchvision's {MODEL}(x=1) raised TypeError"]),
    ],
)
def test_what_does_not_exist_is_refused_with_what_is_near(stated: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(TeacherError) as caught:
        teacher(**stated).load()
    for part in ("teacher 'cnn-a'", *parts):
        assert part in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    options = teacher(model="squeezenet1_1", weights=saved_weights(tmp_path))
    with pytest.raises(TeacherError, match=r"'cnn-a'.*do not fit SqueezeNet: \d+ missing in the file"):
        options.load()


def test_a_file_is_found_beside_the_run_file_and_a_name_stays_one(tmp_path: Path) -> None:
    for weights, expected in (("w.pt", str(tmp_path / "w.pt")), ("IMAGENET1K_V1", "IMAGENET1K_V1")):
        raw = {"name": "a", "kind": "torchvision", "model": MODEL, "weights": weights}
        options = TorchvisionTeacherOptions.model_validate(raw, context={"base": str(tmp_path)})
        assert options.weights == expected


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({}, "Field required"),
        ({"weights": "w.pt", "kwargs": {"weights_backbone": "DEFAULT"}}, "no fingerprint sees"),
        ({"weights": ""}, "at least 1 character"),
    ],
)
def test_options_that_make_no_sense_are_refused(stated: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        teacher(**stated)
    assert part in str(caught.value)


def test_the_fingerprint_of_a_file_needs_no_torchvision(tmp_path: Path) -> None:
    script = (
        "import sys; from softcask.pipeline.teachers.registry import TEACHERS; "
        "TEACHERS.get('torchvision')(name='a', model='m', weights=sys.argv[1]).fingerprint_fields(); "
        "print('torchvision' in sys.modules, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, saved_weights(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["False"] * 2
