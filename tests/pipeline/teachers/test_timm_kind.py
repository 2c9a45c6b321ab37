from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.mended_torchvision import mend
from tests.pipeline.teachers.contract import TeacherContract

from softcask.pipeline.config.local_paths import local_paths
from softcask.pipeline.teachers.timm_kind import TimmTeacherOptions
from softcask.storage_schemas.errors import TeacherError

mend()
timm = pytest.importorskip("timm")

NAME = "test_resnet.r160_in1k"


def teacher(**more: Any) -> TimmTeacherOptions:
    return TimmTeacherOptions.model_validate({"name": "cnn-a", **more})


def photos(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def module(seed: int = 1, **kwargs: Any) -> torch.nn.Module:
    """A model whose logits differ from row to row, as an untrained one's hardly do."""
    torch.manual_seed(seed)
    made = timm.create_model("test_resnet", **kwargs).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def saved_weights(folder: Path, seed: int = 1, **kwargs: Any) -> str:
    path = folder / f"weights{seed}.safetensors"
    save_file({name: each.contiguous() for name, each in module(seed, **kwargs).state_dict().items()}, path)
    return str(path)


def saved_folder(folder: Path, seed: int = 1) -> str:
    target = folder / f"saved{seed}"
    config = {"label_names": ["cat", "dog", "emu"], "label_descriptions": {"cat": "a cat", "dog": "a dog"}}
    timm.models.save_for_hf(
        module(seed, num_classes=3), str(target), model_config=config, safe_serialization=True
    )
    return str(target)


class TestTimmWeightsContract(TeacherContract):
    num_outputs = 4

    def options(self, folder: Path) -> TimmTeacherOptions:
        return self._options(folder, 1)

    def retrained(self, folder: Path) -> TimmTeacherOptions:
        return self._options(folder, 2)

    def inputs_B(self) -> NDArray[Any]:
        return photos(6, 40, 48, 3)

    def _options(self, folder: Path, seed: int) -> TimmTeacherOptions:
        weights = saved_weights(folder, seed, num_classes=4)
        return teacher(model=NAME, weights=weights, kwargs={"num_classes": 4}, images={"size": [32, 32]})


class TestTimmFolderContract(TestTimmWeightsContract):
    num_outputs = 3

    def inputs_B(self) -> NDArray[Any]:
        return photos(5, 3, 160, 160)

    def _options(self, folder: Path, seed: int) -> TimmTeacherOptions:
        return teacher(model=saved_folder(folder, seed))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the Hub's client keeps it, with one model of timm's; no network."""
    import huggingface_hub.constants as constants

    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--timm--{NAME}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    shutil.move(saved_weights(tmp_path), repository / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def reference(made: torch.nn.Module, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By timm's own transform, which takes images of PIL one by one."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(made))
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(row)) for row in rows])
        result: NDArray[np.float32] = made(batch).numpy()
    return result


def test_logits_are_those_of_timms_own_preprocessing(tmp_path: Path) -> None:
    made = module(num_classes=4)
    loaded = teacher(
        model=NAME, weights=saved_weights(tmp_path, num_classes=4), kwargs={"num_classes": 4}
    ).load()
    exact = photos(2, 160, 160, 3)
    batch = torch.from_numpy(exact).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = made((batch - 0.5) / 0.5).numpy()
    np.testing.assert_allclose(loaded.logits(exact), expected, rtol=1e-4, atol=1e-4)
    smooth = np.stack([np.array(Image.fromarray(each).resize((300, 200))) for each in photos(3, 9, 9, 3)])
    expected = reference(made, smooth)
    spread = expected.std()
    assert np.abs(loaded.logits(smooth) - expected).max() < 0.05 * spread
    other = reference(made, smooth[:, ::-1])
    assert np.abs(other - expected).max() > 0.05 * spread, "or the comparison could not fail"


def test_timms_own_weights_are_read_from_the_hubs_cache_without_a_network(hub_cache: Path) -> None:
    options = teacher(model=NAME, pretrained=True)
    rows = photos(3, 160, 160, 3)
    made = module()
    loaded = options.load()
    assert loaded.logits(rows).shape == (3, 1000)
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name])
    file = next(hub_cache.rglob("*.safetensors"))
    by_file = teacher(model=NAME, weights=str(file))
    assert options.weights_bytes() == by_file.weights_bytes() == file.stat().st_size
    assert options.fingerprint_fields() == by_file.fingerprint_fields()


def test_a_model_of_ones_own_on_the_hub_is_a_folder_there(hub_cache: Path, tmp_path: Path) -> None:
    commit = "89abcdef0123456789abcdef0123456789abcdef"
    repository = hub_cache / "models--org--mine"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v2").write_text(commit)
    folder = saved_folder(tmp_path)
    shutil.copytree(folder, repository / "snapshots" / commit)
    options, rows = teacher(model="hf-hub:org/mine", revision="v2"), photos(2, 160, 160, 3)
    assert options.fingerprint_fields() == teacher(model=folder).fingerprint_fields()
    np.testing.assert_array_equal(options.load().logits(rows), teacher(model=folder).load().logits(rows))
    with pytest.raises(TeacherError, match="model 'org/mine' is no folder"):
        teacher(model="hf-hub:org/mine").load()


def test_classes_of_imagenet_are_found_by_wordnets_ids_and_by_name(hub_cache: Path) -> None:
    wanted = ["goldfish", "tench, Tinca tinca", "n01491361"]
    rows = photos(2, 160, 160, 3)
    all_outputs = teacher(model=NAME, pretrained=True).load().logits(rows)
    picked = teacher(model=NAME, pretrained=True, class_map=wanted).load().logits(rows)
    # Places in ImageNet's order, as everyone numbers its classes: 0 tench, 1 goldfish, 3 tiger shark.
    np.testing.assert_array_equal(picked, all_outputs[:, [1, 0, 3]])


def test_a_folders_own_names_pick_its_outputs(tmp_path: Path) -> None:
    model, rows = saved_folder(tmp_path), photos(2, 160, 160, 3)
    assert teacher(model=model).output_names() == [("cat", "a cat"), ("dog", "a dog"), ("emu",)]
    picked = teacher(model=model, class_map=["emu", "a cat"]).load().logits(rows)
    np.testing.assert_array_equal(picked, teacher(model=model).load().logits(rows)[:, [2, 0]])
    with pytest.raises(
        TeacherError, match=r"teacher 'cnn-a': 1 of 2 classes .* 'dogs' \(near: 'dog' or 'a dog'\)"
    ):
        teacher(model=model, class_map=["cat", "dogs"]).load()


def test_what_is_not_on_this_machine_is_said_with_its_name_the_cache_and_what_to_do(hub_cache: Path) -> None:
    options = teacher(model="test_vit.r160_in1k", pretrained=True, local_files_only=True)
    for ask in (options.load, options.fingerprint_fields):
        with pytest.raises(TeacherError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith("teacher 'cnn-a': model 'timm/test_vit.r160_in1k' is no folder")
        for part in (str(hub_cache), "local_files_only", "hf download timm/test_vit.r160_in1k", "HF_TOKEN"):
            assert part in message


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("resnet5O.a1_in1k", ["has no model 'resnet5O'; did you mean", "'resnet50'"]),
        ("resnet50.a1_in2k", ["has no tag 'a1_in2k' of resnet50", "'resnet50.a1_in1k'"]),
        ("./nowhere", ["model ./nowhere: there is no such folder"]),
    ],
)
def test_a_model_that_does_not_exist_is_refused_with_what_is_near(
    model: str, parts: list[str], tmp_path: Path
) -> None:
    stated = {"weights": str(tmp_path / "w.safetensors")} if "." in model[1:] else {}
    with pytest.raises(TeacherError) as caught:
        teacher(model=model, **stated).load()
    for part in ("teacher 'cnn-a'", *parts):
        assert part in str(caught.value)


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    model = Path(saved_folder(tmp_path))
    (model / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"no model\.safetensors in that folder, which has config\.json"):
        teacher(model=str(model)).load()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    options = teacher(model=NAME, weights=saved_weights(tmp_path, num_classes=4))
    with pytest.raises(TeacherError, match=r"'cnn-a'.*do not fit ResNet: 2 of another shape: fc\.bias"):
        options.load()


def test_arguments_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    options = teacher(model=NAME, weights=saved_weights(tmp_path), kwargs={"widht": 3})
    with pytest.raises(TeacherError, match=r"create_model\('test_resnet.*widht=3\) raised TypeError"):
        options.load()


def test_a_head_that_would_be_random_is_refused(hub_cache: Path) -> None:
    with pytest.raises(TeacherError, match="have 1000 classes, kwargs ask for 7.*class_map"):
        teacher(model=NAME, pretrained=True, kwargs={"num_classes": 7}).load()


@pytest.mark.parametrize(
    ("inputs_B", "part"),
    [
        (np.array(["a", "b"], dtype=np.dtypes.StringDType()), "the transfer set's rows are text"),
        (np.zeros((2, 160, 160, 3), dtype=np.float32), r"rows are float32, expected bytes"),
        (np.zeros((2, 7), dtype=np.uint8), r"rows of shape \[7\] are no images"),
    ],
)
def test_rows_that_are_no_images_are_the_teachers_error(
    inputs_B: NDArray[Any], part: str, tmp_path: Path
) -> None:
    loaded = teacher(model=NAME, weights=saved_weights(tmp_path)).load()
    with pytest.raises(TeacherError, match=f"teacher 'cnn-a': {part}"):
        loaded.logits(inputs_B)


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({"model": NAME}, "found neither of pretrained = true and weights"),
        ({"model": NAME, "pretrained": True, "weights": "w.pt"}, "found both of pretrained"),
        ({"model": "./saved", "weights": "w.pt"}, "holds its weights"),
        ({"model": NAME, "pretrained": True, "kwargs": {"checkpoint_path": "x"}}, "no fingerprint sees"),
        ({"model": ""}, "at least 1 character"),
    ],
)
def test_options_that_make_no_sense_are_refused(stated: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        teacher(**stated)
    assert part in str(caught.value)


def test_a_folder_is_found_beside_the_run_file(tmp_path: Path) -> None:
    here = {"base": str(tmp_path)}
    (tmp_path / "resnet50").mkdir()
    for model, folder in (("./saved", True), ("saved1", True), ("resnet50", False)):
        saved_folder(tmp_path)
        raw = {"name": "a", "kind": "timm", "model": model} | ({} if folder else {"pretrained": True})
        options = TimmTeacherOptions.model_validate(raw, context=here)
        assert options.model == (str(tmp_path / model) if folder else model)
    packed = TimmTeacherOptions.model_validate({"name": "a", "model": "saved1"}, context=here)
    paths = list(local_paths(packed))
    assert paths == [(("model",), tmp_path / "saved1")], "or `softcask submit` would leave it behind"


def test_the_fingerprint_of_a_file_needs_no_timm_and_names_no_place(tmp_path: Path) -> None:
    script = (
        "import json, sys; from softcask.pipeline.teachers.registry import TEACHERS; "
        "fields = TEACHERS.get('timm')(name='a', model=sys.argv[1], **json.loads(sys.argv[2]))"
        ".fingerprint_fields(); "
        "print(json.dumps([sorted(fields), 'timm' in sys.modules, 'torch' in sys.modules]))"
    )
    weights, folder = {"weights": saved_weights(tmp_path)}, saved_folder(tmp_path)
    for model, more, keys in ((NAME, weights, {"model", "weights"}), (folder, {}, {"files"})):
        command = [sys.executable, "-c", script, model, json.dumps(more)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        fields, *imported = json.loads(done.stdout)
        assert imported == [False, False]
        assert set(fields) == keys | {"kind", "dtype", "code_version", "kwargs", "images"}


def test_state_that_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    weights = saved_weights(tmp_path)
    state = teacher(model=NAME, weights=weights).load().module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(weights).items())
