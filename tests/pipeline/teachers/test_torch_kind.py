from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save_file
from tests.pipeline.teachers.contract import TeacherContract

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.teachers import torch_kind
from softcask.pipeline.teachers.torch_kind import TorchTeacherOptions
from softcask.pipeline.teachers.torch_teacher import _may_differ, usable_device
from softcask.storage_schemas.errors import FactoryError, TeacherError
from softcask.storage_schemas.fingerprint import digest

SOURCE = '''
import sys
import torch
from types import SimpleNamespace


def linear(num_inputs=6, num_classes=4):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(num_inputs, num_classes))


def convolutional(width=8):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3), torch.nn.BatchNorm2d(width), torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(width * 36, 5),
    )


class Giving(torch.nn.Module):
    """Gives what a test wants to see handled."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, batch):
        logits = batch.flatten(1)
        return {
            "mapping": lambda: {"hidden": None, "logits": logits},
            "object": lambda: SimpleNamespace(logits=logits),
            "tuple": lambda: (logits, None),
            "double": lambda: logits.double(),
            "itself": lambda: batch,
            "threads": lambda: torch.full((len(batch), 2), float(torch.get_num_threads())),
            "other mapping": lambda: {"scores": logits, "hidden": None},
            "nothing": lambda: None,
            "empty tuple": lambda: (),
            "integers": lambda: logits.long(),
            "too few rows": lambda: logits[1:],
            "three dimensions": lambda: logits[:, None],
            "an error": lambda: logits @ torch.ones(1, 1),
            "the end": lambda: sys.exit(0),
        }[self.what]()


def doubling():
    class Doubling(torch.nn.Module):
        def forward(self, batch):
            return batch.mul_(2)

    return Doubling()


def text():
    return "no module"
'''


@pytest.fixture(scope="module", autouse=True)
def toy_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_torch_teachers.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        add_to_path([str(folder)])
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def teacher(factory: str, **more: Any) -> TorchTeacherOptions:
    return TorchTeacherOptions.model_validate(
        {"name": "cnn-a", "factory": f"toy_torch_teachers:{factory}", **more}
    )


def giving(what: str, **more: Any) -> TorchTeacherOptions:
    return teacher("Giving", kwargs={"what": what}, **more)


ROWS_BHW = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)


class TestTorchTeacherContract(TeacherContract):
    num_outputs = 5

    def options(self, folder: Path) -> TorchTeacherOptions:
        return self._with_weights(folder, 0.0)

    def retrained(self, folder: Path) -> TorchTeacherOptions:
        return self._with_weights(folder, 0.5)

    def inputs_B(self) -> NDArray[Any]:
        return np.random.default_rng(3).integers(0, 256, (6, 8, 8), dtype=np.uint8)

    def _with_weights(self, folder: Path, more: float) -> TorchTeacherOptions:
        options = teacher(
            "convolutional",
            weights=str(folder / f"weights{more}.safetensors"),
            preprocessing={"scale": 1 / 255, "mean": 0.5, "std": 0.25, "shape": [1, 8, 8]},
        )
        generator = torch.Generator().manual_seed(1)
        state = {
            name: torch.rand(tensor.shape, generator=generator) + more
            for name, tensor in teacher("convolutional").load().module.state_dict().items()
            if tensor.is_floating_point()
        }
        state["1.num_batches_tracked"] = torch.tensor(7)
        save_file(state, str(options.weights))
        return options


class TestTorchTeacherOfFloatsContract(TestTorchTeacherContract):
    """Rows that need no conversion at all: nothing stands between the caller's memory and the module."""

    def inputs_B(self) -> NDArray[Any]:
        return np.random.default_rng(3).normal(size=(6, 1, 8, 8)).astype(np.float32)

    def _with_weights(self, folder: Path, more: float) -> TorchTeacherOptions:
        return (
            super()
            ._with_weights(folder, more)
            .model_copy(update={"preprocessing": teacher("linear").preprocessing})
        )


def test_logits_are_those_of_the_formula() -> None:
    loaded = teacher("linear", preprocessing={"scale": 1 / 255, "mean": 0.5, "std": 0.25}).load()
    weight, bias = (tensor.double().numpy() for tensor in loaded.module.parameters())
    rows = (ROWS_BHW.reshape(5, 6) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(loaded.logits(ROWS_BHW), rows @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_the_module_evaluates_and_takes_no_gradients() -> None:
    module = teacher("convolutional").load().module
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_parameters_that_a_factory_draws_are_the_same_in_every_actor() -> None:
    before = torch.random.get_rng_state()
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(teacher("linear").load().state_digest())
    assert len(digests) == 1
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    teacher("linear").load()
    assert torch.equal(torch.rand(3), expected), "loading must not move the caller's random numbers"
    torch.random.set_rng_state(before)


def test_a_class_map_picks_outputs_in_the_order_of_the_store() -> None:
    logits_BC = giving("itself", class_map=[5, 0, 3], preprocessing={"shape": [6]}).load().logits(ROWS_BHW)
    np.testing.assert_array_equal(logits_BC, ROWS_BHW.reshape(5, 6)[:, [5, 0, 3]].astype(np.float32))


@pytest.mark.parametrize("what", ["mapping", "object", "tuple", "double"])
def test_logits_are_found_in_what_models_return(what: str) -> None:
    logits_BC = giving(what).load().logits(ROWS_BHW)
    assert logits_BC.dtype == np.float32
    np.testing.assert_array_equal(logits_BC, ROWS_BHW.reshape(5, 6).astype(np.float32))


def test_a_module_that_writes_into_its_input_does_not_change_the_batch() -> None:
    rows_BC = np.ones((3, 2), dtype=np.float32)
    np.testing.assert_array_equal(teacher("doubling").load().logits(rows_BC), [[2, 2]] * 3)
    np.testing.assert_array_equal(rows_BC, 1)


@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 1e-4, 3e-2), ("float16", 1e-5, 4e-3)])
def test_autocast_computes_in_fewer_bits_and_gives_float32(dtype: str, least: float, most: float) -> None:
    rows = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    exact_BC = teacher("linear").load().logits(rows)
    logits_BC = teacher("linear", dtype=dtype).load().logits(rows)
    assert logits_BC.dtype == np.float32
    assert least < np.abs(logits_BC - exact_BC).max() / exact_BC.std() < most


def test_every_thread_computes_with_the_cores_that_the_teacher_was_given() -> None:
    loaded = giving("threads", num_cpus=2).load()
    started, go = threading.Event(), threading.Event()
    seen: list[float] = []

    def label() -> None:
        # A thread that has computed before keeps its own number of threads.
        torch.set_num_threads(1)
        started.set()
        go.wait(30)
        seen.append(float(loaded.logits(ROWS_BHW)[0, 0]))

    thread = threading.Thread(target=label)
    thread.start()
    started.wait(30)
    go.set()
    thread.join()
    torch.set_num_threads(1)
    assert seen == [2.0]
    assert loaded.logits(ROWS_BHW)[0, 0] == 2.0


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("other mapping", ["returned a dict with keys ['hidden', 'scores']", "expected a tensor of logits"]),
        ("nothing", ["returned a NoneType", "expected a tensor of logits"]),
        ("empty tuple", ["returned a tuple", "a tuple that begins with them"]),
        ("integers", ["expected floating logits of shape [5, classes]", "found int64 of shape [5, 6]"]),
        ("too few rows", ["of shape [5, classes], found float32 of shape [4, 6]"]),
        ("three dimensions", ["found float32 of shape [5, 1, 6]"]),
        ("an error", ["raised RuntimeError on a batch of shape [5, 2, 3]", "[5, 2, 3] uint8", "5x6 and 1x1"]),
        ("the end", ["raised SystemExit on a batch of shape [5, 2, 3]"]),
    ],
)
def test_output_that_is_no_logits_is_refused_with_its_shape(what: str, parts: list[str]) -> None:
    loaded = giving(what).load()
    with pytest.raises(TeacherError) as caught:
        loaded.logits(ROWS_BHW)
    for part in ["teacher 'cnn-a'", *parts]:
        assert part in str(caught.value)


def test_a_class_map_beyond_the_outputs_is_refused() -> None:
    loaded = giving("itself", class_map=[0, 6], preprocessing={"shape": [6]}).load()
    with pytest.raises(TeacherError, match="'cnn-a': class_map names output 6, but it has outputs 0 to 5"):
        loaded.logits(ROWS_BHW)


def test_rows_that_do_not_fit_the_preprocessing_are_the_teachers_error() -> None:
    loaded = giving("itself", preprocessing={"shape": [7]}).load()
    with pytest.raises(TeacherError, match=r"'cnn-a': .*rows of shape \[2, 3\] do not fit shape \[7\]"):
        loaded.logits(ROWS_BHW)


def test_rows_that_are_no_numbers_are_the_teachers_error() -> None:
    with pytest.raises(TeacherError, match=r"teacher 'cnn-a': .*numpy"):
        giving("itself").load().logits(np.array(["a", "b"]))


def test_a_factory_that_makes_no_module_is_refused() -> None:
    with pytest.raises(TeacherError) as caught:
        teacher("text").load()
    assert str(caught.value) == (
        "teacher 'cnn-a': expected a torch.nn.Module from factory 'toy_torch_teachers:text', found a str"
    )


def test_a_factory_that_raises_is_named_with_its_teacher() -> None:
    with pytest.raises(
        FactoryError, match=r"teacher 'cnn-a': factory toy_torch_teachers:linear\(size=3\) raised"
    ):
        teacher("linear", kwargs={"size": 3}).load()


def test_weights_that_are_missing_or_do_not_fit_name_the_teacher(tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    options = teacher("linear", weights=path)
    for ask in (options.load, options.fingerprint_fields):
        with pytest.raises(
            TeacherError, match=r"teacher 'cnn-a': weights .*w\.safetensors: there is no such"
        ):
            ask()
    save_file({"1.weight": torch.zeros(4, 5), "1.bias": torch.zeros(4)}, path)
    with pytest.raises(TeacherError, match=r"'cnn-a'.*do not fit Sequential.*file \[4, 5\], model \[4, 6\]"):
        options.load()


@pytest.mark.parametrize("device", ["no such device", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(TeacherError, match=f"teacher 'cnn-a': device '{device}' cannot be used here: "):
        teacher("linear", device=device).load()


@pytest.mark.parametrize(
    ("num_gpus", "there", "expected"), [(0, True, "cpu"), (0, False, "cpu"), (0.5, True, "cuda")]
)
def test_auto_takes_cuda_only_where_it_is_asked_for(
    num_gpus: float, there: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert usable_device("auto", num_gpus=num_gpus).type == expected


def test_a_gpu_that_was_asked_for_and_is_not_there_is_never_replaced_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TeacherError) as caught:
        teacher("linear", num_gpus=0.5).load()
    for part in ("teacher 'cnn-a': num_gpus = 0.5", "finds no CUDA device", "device = 'cpu'"):
        assert part in str(caught.value)
    assert teacher("linear", num_gpus=0.5, device="cpu").load().device.type == "cpu"


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("class_map", [0, -1], "class_map must list outputs from 0 on, found [0, -1]"),
        ("class_map", [], "class_map must list outputs from 0 on, found []"),
        ("class_map", [2, 1, 2], "class_map names an output twice: [2, 1, 2]"),
        ("factory", "models.linear", "expected 'module:function', such as 'models:small_cnn'"),
        ("dtype", "float64", "'float32', 'bfloat16' or 'float16'"),
        ("weigths", "w.pt", "Extra inputs are not permitted"),
        ("batch_size", 0, 'batch_size must be a number of rows from 1 on, or "auto"; found 0'),
        ("batch_size", "many", "found 'many'"),
    ],
)
def test_options_that_make_no_sense_are_refused(field: str, value: Any, part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TorchTeacherOptions.model_validate({"name": "a", "factory": "m:f", field: value})
    assert part in str(caught.value)


def test_the_fingerprint_holds_all_that_changes_numbers(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"abc")
    options = teacher(
        "linear",
        kwargs={"num_classes": 3},
        weights=str(path),
        dtype="bfloat16",
        class_map=[1, 0],
        code_version="v1",
        preprocessing={"mean": 0.5},
    )
    assert options.fingerprint_fields() == {
        "kind": "torch",
        "factory": "toy_torch_teachers:linear",
        "kwargs": {"num_classes": 3},
        # The first test vector of FIPS 180-2.
        "weights": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "preprocessing": {"mean": [0.5], "layout": "as_is"},
        "dtype": "bfloat16",
        "class_map": [1, 0],
        "code_version": "v1",
    }


def test_an_option_that_is_not_given_leaves_the_fingerprint_as_it_was_before_there_was_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class LaterPreprocessing(PreprocessingOptions):
        resize: tuple[int, int] | None = None

    class LaterOptions(TorchTeacherOptions):
        preprocessing: LaterPreprocessing = LaterPreprocessing()
        quantised: str | None = None

    monkeypatch.setattr(torch_kind, "_COUNTED", {*torch_kind._COUNTED, "quantised"})
    given = {"name": "a", "factory": "m:f", "preprocessing": {"scale": 0.5}}
    now, later = TorchTeacherOptions.model_validate(given), LaterOptions.model_validate(given)
    assert later.fingerprint_fields() == now.fingerprint_fields()
    resized = LaterOptions.model_validate({**given, "preprocessing": {"scale": 0.5, "resize": [8, 8]}})
    assert resized.fingerprint_fields() != now.fingerprint_fields()


def test_none_among_the_arguments_of_a_factory_counts() -> None:
    kwargs = {"norm": None, "blocks": [{"width": None}]}
    assert teacher("linear", kwargs=kwargs).fingerprint_fields()["kwargs"] == kwargs


def test_fingerprints_of_stores_that_stand_never_change() -> None:
    plain = TorchTeacherOptions(name="a", factory="models:small_cnn")
    # By sha256sum, of the JSON written out by hand: keys sorted, no spaces.
    assert digest(plain.fingerprint_fields()) == (
        "sha256:05154125228d0b1c0206190afbff29dfbf80554c8e929f59f59863f03c4e9636"
    )
    full = TorchTeacherOptions.model_validate(
        {
            "name": "a",
            "factory": "models:small_cnn",
            "kwargs": {"width": 8, "norm": None},
            "preprocessing": {"scale": 0.25, "mean": 0.5, "shape": [1, 28, 28]},
            "dtype": "bfloat16",
            "class_map": [1, 0],
            "code_version": "v1",
        }
    )
    assert digest(full.fingerprint_fields()) == (
        "sha256:1d79e17adac67995be61f182779b9be6fb80bbbf35aa4e10a2982b31ee83d94c"
    )


def test_the_source_digest_is_that_of_the_factorys_file_which_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "toy_never_run.py").write_bytes(b"abc")
    options = TorchTeacherOptions(name="a", factory="toy_never_run:f")
    assert options.source_digest() == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert "toy_never_run" not in sys.modules
    assert TorchTeacherOptions(name="a", factory="toy_nowhere.at_all:f").source_digest() is None


def test_validating_and_fingerprinting_a_teacher_does_not_import_torch() -> None:
    script = (
        "import sys; from softcask.pipeline.teachers.registry import TEACHERS; "
        "options = TEACHERS.get('torch')(name='a', factory='m:f'); "
        "options.fingerprint_fields(); options.source_digest(); "
        "print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_options_that_change_numbers_count_and_false_is_as_if_not_said() -> None:
    plain = teacher("linear").fingerprint_fields()
    for option in ("channels_last", "compile", "deterministic"):
        assert teacher("linear", **{option: False}).fingerprint_fields() == plain
        assert teacher("linear", **{option: True}).fingerprint_fields() == {**plain, option: True}


def test_images_channel_by_pixel_give_the_same_logits_up_to_rounding() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    seen: list[bool] = []
    loaded = teacher("convolutional", channels_last=True).load()
    convolution = loaded.module[0]
    convolution.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    expected_BC = teacher("convolutional").load().logits(images)
    np.testing.assert_allclose(
        loaded.logits(images), expected_BC, rtol=1e-4, atol=1e-4 * np.abs(expected_BC).max()
    )
    assert seen == [True]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_module_is_the_one_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: lambda batch: module(batch) + 1)
    compiled, plain = teacher("linear", compile=True).load(), teacher("linear").load()
    np.testing.assert_array_equal(compiled.logits(ROWS_BHW), plain.logits(ROWS_BHW) + 1)
    assert compiled.state_digest() == plain.state_digest()
    assert "torch.compile" in compiled.may_differ[0]


def test_torch_is_held_to_one_order_while_a_batch_is_computed_and_not_after() -> None:
    loaded, seen = teacher("linear", deterministic=True).load(), []
    loaded.module.register_forward_pre_hook(
        lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    loaded.logits(ROWS_BHW)
    assert (seen, torch.are_deterministic_algorithms_enabled()) == ([True], False)


@pytest.mark.parametrize(
    ("device", "deterministic", "said"), [("cpu", False, False), ("cuda", False, True), ("cuda", True, False)]
)
def test_a_card_may_add_in_any_order_unless_it_is_held_to_one(
    device: str, deterministic: bool, said: bool
) -> None:
    why = _may_differ(torch.device(device), compiled=False, deterministic=deterministic)
    assert [("deterministic = true" in line) for line in why] == [True] * said


def test_a_batch_is_made_ready_apart_from_being_computed_and_may_be_taken_apart() -> None:
    loaded = teacher("linear").load()
    staged = loaded.stage(ROWS_BHW)
    assert (len(staged), len(staged[1:4]), len(staged[4:9])) == (5, 3, 1)
    np.testing.assert_array_equal(loaded.launch(staged).numpy(), loaded.logits(ROWS_BHW))
    np.testing.assert_array_equal(loaded.launch(staged[1:4]).numpy(), loaded.logits(ROWS_BHW[1:4]))


@pytest.mark.parametrize(("num_gpus", "moved"), [(1, True), (4, False)])
def test_a_model_over_several_cards_stays_where_its_factory_put_it(
    num_gpus: int, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[object] = []

    def to(module: torch.nn.Module, *where: object) -> torch.nn.Module:
        moves.extend(where)
        return module

    monkeypatch.setattr(torch.nn.Module, "to", to)
    teacher("linear", num_gpus=num_gpus, device="cpu").load()
    assert moves == [torch.device("cpu")] * moved
