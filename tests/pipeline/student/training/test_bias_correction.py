"""A student that never saw a class, before and after its bias was mended on rows that are held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tests.pipeline.student.conftest import TEACHERS, World, write_store

from softcask.pipeline.student import StudentResult, train_student
from softcask.pipeline.student.config import StudentConfig
from softcask.storage_schemas.errors import ConfigError, StudentError, TransferSetError

MISSING = 3


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Teachers that know five classes, a transfer set without one of them, other rows with all of them."""
    random = np.random.default_rng(5)
    inputs = random.normal(size=(1800, 12)).astype(np.float32)
    exact = inputs @ random.normal(size=(12, 5)).astype(np.float32)
    labels = exact.argmax(axis=1).astype(np.int64)
    train = np.flatnonzero(labels[:900] != MISSING)
    world = World(tmp_path, inputs[train], labels[train], {name: 2 * exact[train] for name in TEACHERS})
    held_out, tests = slice(900, 1300), slice(1300, 1800)
    world.save(
        inputs=world.inputs,
        labels=world.labels,
        held_out=inputs[held_out],
        held_out_labels=labels[held_out],
        tests=inputs[tests],
        tests_labels=labels[tests],
        tests_again=inputs[tests],
    )
    write_store(world, str(tmp_path / "labels.npy"))
    return world


def rows(world: World, name: str, labels: str | None = None) -> dict[str, str]:
    named = {"inputs": name, "labels": labels or f"{name}_labels"}
    return {"kind": "arrays"} | {key: str(world.folder / f"{file}.npy") for key, file in named.items()}


def config_of(world: World, correction: dict[str, Any] | None, **sections: Any) -> StudentConfig:
    base = {
        "store": world.store,
        "python_path": [str(Path(__file__).parents[1])],
        "output": str(world.folder / "out"),
        "transfer_set": rows(world, "inputs", "labels") | {"id_prefix": "row"},
        "evaluation": rows(world, "tests"),
        "model": {"factory": "models_for_tests:mlp"},
        "loss": {"kind": "distillation", "hard_label_weight": 0.9},
        "optimiser": {"lr": 0.02},
        "training": {"epochs": 6, "batch_size": 32, "dtype": "float32"},
        "bias_correction": correction,
    }
    return StudentConfig.model_validate(base | sections)


def held_out(world: World, name: str = "held_out", labels: str | None = None, **more: Any) -> dict[str, Any]:
    return {"classes": [MISSING], "held_out": rows(world, name, labels), **more}


def saved(config: StudentConfig, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(Path(config.output) / name)


def wrong_test_rows(world: World, config: StudentConfig) -> NDArray[np.bool_]:
    """Which test rows the saved model gets wrong, as whoever loads it would find."""
    import models_for_tests  # type: ignore[import-not-found]

    model = getattr(models_for_tests, config.model.factory.partition(":")[2])()
    model.load_state_dict(saved(config))
    with torch.no_grad():
        logits_NC = model.eval()(torch.from_numpy(np.load(world.folder / "tests.npy")))
    if (Path(config.output) / "logit_bias.safetensors").exists():
        logits_NC += saved(config, "logit_bias.safetensors")["logit_bias"]
    wrong: NDArray[np.bool_] = logits_NC.argmax(1).numpy() != np.load(world.folder / "tests_labels.npy")
    return wrong


@pytest.mark.parametrize("objective", ["errors", "likelihood"])
def test_a_class_never_seen_is_recognised_once_its_bias_is_raised(world: World, objective: str) -> None:
    plain = train_student(config_of(world, None, output=str(world.folder / "plain")))
    config = config_of(world, held_out(world, objective=objective))
    result = train_student(config)
    facts = result.bias_correction
    assert facts is not None and facts["shift"] > 0
    assert facts["errors"][0] == plain.errors
    assert result.errors == facts["errors"][1] < facts["errors"][0] / 1.5
    assert facts["errors_in_classes"][1] < facts["errors_in_classes"][0] / 2
    assert facts["held_out_errors"][1] < facts["held_out_errors"][0]
    assert (facts["held_out_rows"], facts["classes"], facts["parameter"]) == (400, ["class3"], "4.bias")
    wrong_N = wrong_test_rows(world, config)
    assert wrong_N.sum() == result.errors
    missing_N = np.load(world.folder / "tests_labels.npy") == MISSING
    assert wrong_N[missing_N].sum() == facts["errors_in_classes"][1]


def test_the_shift_stands_in_the_output_layers_bias_alone_and_the_checkpoint_is_as_it_was(
    world: World,
) -> None:
    config = config_of(world, held_out(world))
    result = train_student(config)
    assert result.bias_correction is not None
    checkpoint = saved(config, "checkpoint.safetensors")
    for name, tensor in saved(config).items():
        moved = tensor - checkpoint[f"model/{name}"]
        expected = torch.zeros_like(moved)
        if name == "4.bias":
            expected[MISSING] = result.bias_correction["shift"]
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-6)


def test_where_no_parameter_is_the_outputs_bias_the_shift_lies_beside_the_model(world: World) -> None:
    config = config_of(world, held_out(world), model={"factory": "models_for_tests:without_output_bias"})
    result = train_student(config)
    facts = result.bias_correction
    assert facts is not None
    assert (facts["parameter"], facts["file"]) == (None, "logit_bias.safetensors")
    bias_C = saved(config, "logit_bias.safetensors")["logit_bias"]
    assert bias_C.tolist() == pytest.approx([0, 0, 0, facts["shift"], 0])
    checkpoint = saved(config, "checkpoint.safetensors")
    for name, tensor in saved(config).items():
        torch.testing.assert_close(tensor, checkpoint[f"model/{name}"], rtol=0, atol=0)
    assert wrong_test_rows(world, config).sum() == result.errors == facts["errors"][1]


def test_another_correction_of_a_finished_training_trains_nothing(world: World) -> None:
    config = config_of(world, held_out(world), model={"factory": "models_for_tests:without_output_bias"})
    first = train_student(config)
    before = (Path(config.output) / "checkpoint.safetensors").stat().st_mtime_ns
    others = {"classes": [0, 1, 2, 4]}
    second = train_student(config.model_copy(update=_correction(world, **others)))
    assert (Path(config.output) / "checkpoint.safetensors").stat().st_mtime_ns == before
    assert first.bias_correction is not None and second.bias_correction is not None
    assert second.bias_correction["shift"] == pytest.approx(-first.bias_correction["shift"], abs=1e-5)
    again = train_student(config.model_copy(update=_correction(world, **others)))
    assert again == StudentResult.read(Path(config.output) / "result.json")
    none = train_student(config.model_copy(update={"bias_correction": None}))
    assert none.bias_correction is None and none.errors == first.bias_correction["errors"][0]
    assert not (Path(config.output) / "logit_bias.safetensors").exists()


def _correction(world: World, **more: Any) -> dict[str, Any]:
    return {"bias_correction": config_of(world, held_out(world) | more).bias_correction}


def test_it_is_never_fitted_on_the_evaluations_rows(world: World) -> None:
    config = config_of(world, held_out(world, "tests"))
    with pytest.raises(StudentError, match="names the evaluation's own rows"):
        train_student(config)
    assert not (Path(config.output) / "checkpoint.safetensors").exists()


def test_nor_on_a_copy_of_them_and_the_training_is_not_lost(world: World) -> None:
    config = config_of(world, held_out(world, "tests_again", "tests_labels"))
    with pytest.raises(
        StudentError, match="500 of the 500 rows of .* are rows that the student is evaluated"
    ):
        train_student(config)
    seen: list[int] = []
    train_student(
        config.model_copy(update=_correction(world)), progress=lambda state: seen.append(state.epoch)
    )
    assert min(seen, default=6) == 6


def test_nor_on_rows_that_the_student_was_trained_on(world: World) -> None:
    config = config_of(world, held_out(world, "inputs", "labels"))
    with pytest.raises(StudentError, match="are rows that the student is trained on"):
        train_student(config)


def test_a_few_rows_in_common_are_left_out(world: World) -> None:
    inputs = np.load(world.folder / "held_out.npy")
    inputs[7], inputs[9], inputs[11] = (
        world.inputs[0],
        world.inputs[5],
        np.load(world.folder / "tests.npy")[2],
    )
    world.save(held_out=inputs)
    facts = train_student(config_of(world, held_out(world))).bias_correction
    assert facts is not None and facts["held_out_rows"] == 397


def test_without_evaluation_the_held_out_errors_are_told(world: World) -> None:
    result = train_student(config_of(world, held_out(world), evaluation=None))
    facts = json.loads((Path(config_of(world, None).output) / "result.json").read_text())["bias_correction"]
    assert result.bias_correction == facts
    assert facts["errors"] is None and facts["held_out_errors"][0] > facts["held_out_errors"][1]


@pytest.mark.parametrize(
    ("section", "error", "message"),
    [
        ({"classes": ["three"]}, ConfigError, "there is no class 'three'"),
        ({"held_out": {"inputs": "labels.npy"}}, TransferSetError, "shape"),
        ({"held_out": {"labels": None}}, TransferSetError, "no labels"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    world: World, section: dict[str, Any], error: type[Exception], message: str
) -> None:
    asked = held_out(world)
    for name, value in section.items():
        if name == "held_out":
            paths = {key: file and str(world.folder / file) for key, file in value.items()}
            asked["held_out"] = asked["held_out"] | {"labels": None} | paths
        else:
            asked[name] = value
    config = config_of(world, asked)
    with pytest.raises(error, match=message):
        train_student(config)
    assert not (Path(config.output) / "checkpoint.safetensors").exists()
