"""Whole trainings: what is learnt, what is resumed to the bit, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy, kl_div

from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.student import StudentProgress, StudentResult, train_student
from softcask.pipeline.student.config import StudentConfig
from softcask.storage_schemas.errors import (
    CheckpointError,
    FactoryError,
    MisalignedRows,
    StudentError,
    TransferSetError,
)


def config_of(world: Any, output: str = "out", **sections: Any) -> StudentConfig:
    base = {
        "store": world.store,
        "python_path": [str(Path(__file__).parents[1])],
        "output": str(world.folder / output),
        "targets": {"temperature": 4},
        "transfer_set": {"kind": "arrays", "inputs": str(world.folder / "inputs.npy"), "id_prefix": "row"},
        "model": {"factory": "models_for_tests:mlp"},
        "loss": {"kind": "distillation"},
        "optimiser": {"lr": 0.01, "schedule": "cosine"},
        "training": {"epochs": 4, "batch_size": 32, "dtype": "float32"},
    }
    merged = {
        name: value | sections.pop(name, {}) if isinstance(value, dict) else value
        for name, value in base.items()
    }
    return StudentConfig.model_validate(merged | sections)


def weights(config: StudentConfig, name: str = "model.safetensors") -> dict[str, Any]:
    return dict(load_file(Path(config.output) / name))


def assert_equal_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)


class Stop(Exception):
    """Stands for a killed process."""


def stop_in_epoch(epoch: int) -> Callable[[StudentProgress], None]:
    def progress(state: StudentProgress) -> None:
        if state.epoch == epoch and state.loss is not None:
            raise Stop

    return progress


def kl_at(world: Any, config: StudentConfig, temperature: float = 4.0) -> float:
    """Mean KL of the trained (or untrained) student to the mean of the teachers, in float64."""
    from models_for_tests import mlp  # type: ignore[import-not-found]

    torch.manual_seed(config.training.seed)
    model = mlp()
    if (path := Path(config.output) / "model.safetensors").exists():
        model.load_state_dict({name: torch.from_numpy(array) for name, array in load_file(path).items()})
    with torch.no_grad():
        z = model.eval()(torch.from_numpy(world.inputs)).double() / temperature
    p = sum(torch.from_numpy(world.logits[name]).double().div(temperature).softmax(1) for name in "ab") / 2
    return float((p * (p.log() - z.log_softmax(1))).sum(1).mean())


def test_distillation_brings_the_student_close_to_its_teachers(world: Any) -> None:
    config = config_of(world, training={"epochs": 30}, loss={"hard_label_weight": 0})
    result = train_student(config)
    trained = kl_at(world, config)
    untrained = kl_at(world, config.model_copy(update={"output": str(world.folder / "none")}))
    assert trained < untrained / 20
    assert result.teacher_passes == 0
    assert result.epochs == 30
    assert result.rows == 200
    assert result.parameters == 12 * 16 + 16 + 2 * 16 + 16 * 5 + 5


def test_a_plain_torch_loop_over_the_same_soft_targets_gives_the_same_student(world: Any) -> None:
    config = config_of(
        world,
        loss={"hard_label_weight": 0.3},
        optimiser={"kind": "adamw", "lr": 0.02, "weight_decay": 0.01, "schedule": "one_cycle"},
        training={"epochs": 3, "seed": 11},
    )
    train_student(config)

    from models_for_tests import mlp

    store = open_store(world.store)
    targets = sum((torch.from_numpy(store.logits(name, np.arange(200))) / 4).softmax(1) for name in "ab") / 2
    inputs, labels = torch.from_numpy(world.inputs), torch.from_numpy(world.labels)
    torch.manual_seed(11)
    model = mlp()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.01, foreach=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=21, cycle_momentum=False)
    for epoch in range(3):
        order = np.random.default_rng(np.random.SeedSequence((11, epoch))).permutation(200)
        for batch in np.split(order, range(32, 200, 32)):
            logits = model(inputs[batch])
            soft = kl_div((logits / 4).log_softmax(1), targets[batch], reduction="batchmean")
            optimiser.zero_grad()
            (0.7 * 16 * soft + 0.3 * cross_entropy(logits, labels[batch])).backward()
            optimiser.step()
            schedule.step()
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(weights(config)[name], tensor.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_logit_matching_brings_the_students_logits_to_the_teachers(world: Any) -> None:
    config = config_of(
        world, training={"epochs": 60}, loss={"kind": "logit_matching"}, optimiser={"lr": 0.03}
    )
    result = train_student(config)
    variance = ((world.logits["a"] + world.logits["b"]) / 2).var(1).mean() / 2
    assert result.loss < variance / 15


def test_an_interrupted_training_resumes_to_the_same_bits(world: Any) -> None:
    model = {"kwargs": {"dropout": 0.3}}
    straight = config_of(world, "straight", model=model)
    train_student(straight)
    broken = config_of(world, "broken", model=model)
    with pytest.raises(Stop):
        train_student(broken, progress=stop_in_epoch(2))
    assert not (Path(broken.output) / "model.safetensors").exists()

    seen: list[StudentProgress] = []
    resumed = train_student(broken, progress=seen.append)

    assert_equal_bits(weights(broken), weights(straight))
    optimiser = "checkpoint.safetensors"
    assert_equal_bits(weights(broken, optimiser), weights(straight, optimiser))
    assert seen[0].message == "going on after epoch 2 of 4"
    assert min(state.epoch for state in seen) == 2
    assert resumed.epochs == 4


@pytest.mark.parametrize(
    "optimiser", [{"kind": "sgd", "momentum": 0.9}, {"kind": "adamw", "weight_decay": 0.1}]
)
def test_other_optimisers_resume_to_the_same_bits_too(world: Any, optimiser: dict[str, Any]) -> None:
    straight, broken = (config_of(world, name, optimiser=optimiser) for name in ("straight", "broken"))
    train_student(straight)
    with pytest.raises(Stop):
        train_student(broken, progress=stop_in_epoch(1))
    train_student(broken)
    assert_equal_bits(weights(broken), weights(straight))


def test_a_finished_training_is_not_repeated_and_says_so(world: Any) -> None:
    config = config_of(world)
    first = train_student(config)
    written = (Path(config.output) / "model.safetensors").stat().st_mtime_ns
    seen: list[StudentProgress] = []
    again = train_student(config, progress=seen.append)
    assert again == first
    assert [state.message for state in seen] == [f"already trained: all 4 epochs are in {config.output}"]
    assert (Path(config.output) / "model.safetensors").stat().st_mtime_ns == written


def test_another_training_in_the_same_output_is_refused_field_by_field(world: Any) -> None:
    train_student(config_of(world))
    other = config_of(world, training={"seed": 7}, targets={"temperature": 20})
    with pytest.raises(CheckpointError) as refused:
        train_student(other)
    assert "training.seed: found 7, expected 0" in str(refused.value)
    assert "targets.temperature: found 20.0, expected 4.0" in str(refused.value)
    assert "model" not in str(refused.value).replace("model.safetensors", "")
    assert "--restart" in str(refused.value)

    fresh = config_of(world, "fresh", training={"seed": 7}, targets={"temperature": 20})
    train_student(fresh)
    train_student(other, restart=True)
    assert_equal_bits(weights(other), weights(fresh))


def test_a_checkpoint_from_other_rows_is_refused(world: Any) -> None:
    train_student(config_of(world, rows="intersection"))
    world.save(inputs=world.inputs[:150])
    with pytest.raises(CheckpointError, match="data: found"):
        train_student(config_of(world, rows="intersection"))


def test_moved_inputs_and_another_number_of_threads_are_the_same_training(world: Any) -> None:
    first = train_student(config_of(world))
    moved = (world.folder / "inputs.npy").rename(world.folder / "elsewhere.npy")
    again = train_student(
        config_of(world, transfer_set={"inputs": str(moved)}, training={"num_threads": 1, "device": "cpu"})
    )
    assert again == first


def test_a_damaged_checkpoint_is_refused_by_name(world: Any) -> None:
    config = config_of(world)
    train_student(config)
    path = Path(config.output) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoint.safetensors is not a checkpoint.*damaged"):
        train_student(config)


def test_a_factory_that_changed_behind_a_checkpoint_is_refused(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(world)
    train_student(config)
    import models_for_tests

    monkeypatch.setattr(models_for_tests, "mlp", lambda: torch.nn.Linear(12, 5))
    with pytest.raises(CheckpointError, match="does not fit the model that its factory builds now"):
        train_student(config)


def test_students_of_one_seed_start_equal_whatever_they_learn_from(world: Any) -> None:
    def start(output: str, **sections: Any) -> dict[str, Any]:
        config = config_of(world, output, optimiser={"lr": 1e-30}, **sections)
        train_student(config)
        return {name: array for name, array in weights(config).items() if name.startswith(("0.", "4."))}

    one = start("one", training={"epochs": 1, "seed": 5}, loss={"kind": "hard"}, targets={"temperature": 1})
    other = start("other", training={"epochs": 1, "seed": 5}, targets={"temperature": 20})
    third = start("third", training={"epochs": 1, "seed": 6})
    assert_equal_bits(one, other)
    assert (one["0.weight"] != third["0.weight"]).any()


def test_torch_is_left_as_it_was_found(world: Any) -> None:
    torch.manual_seed(42)
    expected = torch.rand(3)
    torch.manual_seed(42)
    train_student(config_of(world, training={"epochs": 1, "num_threads": 2}))
    assert torch.get_num_threads() == 1
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_test_errors_are_counted_as_a_plain_argmax_would(world: Any) -> None:
    random = np.random.default_rng(77)
    inputs = random.normal(size=(90, 12)).astype(np.float32)
    labels = np.where(np.arange(90) < 80, random.integers(0, 5, 90), -1)
    world.save(test_inputs=inputs, test_labels=labels)
    tests = {
        "kind": "arrays",
        "inputs": str(world.folder / "test_inputs.npy"),
        "labels": str(world.folder / "test_labels.npy"),
    }
    config = config_of(world, evaluation=tests, training={"evaluate_every_epoch": True})

    seen: list[StudentProgress] = []
    result = train_student(config, progress=seen.append)

    w = weights(config)
    hidden = np.maximum(inputs @ w["0.weight"].T + w["0.bias"], 0)
    scaled = (hidden - w["2.running_mean"]) / np.sqrt(w["2.running_var"] + 1e-5) * w["2.weight"] + w["2.bias"]
    predicted = (scaled @ w["4.weight"].T + w["4.bias"]).argmax(1)
    assert result.errors == (predicted != labels)[:80].sum()
    assert result.test_rows == 80
    assert len(result.errors_by_epoch) == 4
    assert result.errors_by_epoch[-1] == result.errors
    counted = [(state.epoch, state.errors) for state in seen if state.errors is not None]
    assert counted == list(enumerate(result.errors_by_epoch, start=1))

    document = json.loads((Path(config.output) / "result.json").read_text())
    assert document["errors"] == result.errors
    assert document["teacher_passes"] == 0
    assert StudentResult.read(Path(config.output) / "result.json") == result


def test_an_evaluation_added_later_needs_no_training(world: Any) -> None:
    config = config_of(world)
    train_student(config)
    trained = weights(config)
    tests = {
        "kind": "arrays",
        "inputs": str(world.folder / "inputs.npy"),
        "labels": str(world.folder / "labels.npy"),
    }
    seen: list[StudentProgress] = []
    result = train_student(config_of(world, evaluation=tests), progress=seen.append)
    assert result.test_rows == 200
    assert result.errors is not None
    assert [state.loss for state in seen] == [None] * len(seen)
    assert_equal_bits(weights(config), trained)


def test_an_evaluation_without_labels_is_refused_before_training(world: Any) -> None:
    tests = {"kind": "arrays", "inputs": str(world.folder / "inputs.npy")}
    config = config_of(world, evaluation=tests)
    with pytest.raises(TransferSetError, match="evaluation's transfer set has no labels"):
        train_student(config)
    assert not (Path(config.output) / "checkpoint.safetensors").exists()


def test_a_loss_that_is_no_longer_finite_stops_with_what_to_try(world: Any) -> None:
    config = config_of(world, optimiser={"kind": "sgd", "lr": 1e18, "schedule": "constant"})
    with pytest.raises(
        StudentError, match=r"loss became (nan|inf) in epoch 1, step [2-7] of 7 .*lower optimiser.lr"
    ):
        train_student(config)


def test_auto_measures_both_precisions_says_which_and_keeps_it(world: Any) -> None:
    config = config_of(world, training={"dtype": "auto"})
    seen: list[StudentProgress] = []
    result = train_student(config, progress=seen.append)
    assert seen[0].message is not None
    assert seen[0].message.startswith(f"dtype auto: {result.dtype} (a step takes")
    fixed = config_of(world, "fixed", training={"dtype": result.dtype})
    train_student(fixed)
    assert_equal_bits(weights(config), weights(fixed))


def test_bfloat16_trains_and_keeps_float32_parameters(world: Any) -> None:
    config = config_of(world, training={"dtype": "bfloat16", "epochs": 20})
    result = train_student(config)
    assert result.dtype == "bfloat16"
    assert {str(array.dtype) for array in weights(config).values()} == {"float32", "int64"}
    assert kl_at(world, config) < 0.2


def test_tied_parameters_are_saved_and_resumed(world: Any) -> None:
    configs = [
        config_of(world, name, model={"factory": "models_for_tests:Tied"}) for name in ("straight", "broken")
    ]
    train_student(configs[0])
    with pytest.raises(Stop):
        train_student(configs[1], progress=stop_in_epoch(3))
    train_student(configs[1])
    assert_equal_bits(weights(configs[1]), weights(configs[0]))
    np.testing.assert_array_equal(weights(configs[0])["inside.weight"], weights(configs[0])["again.weight"])


def test_progress_counts_steps_up_to_the_end(world: Any) -> None:
    seen: list[StudentProgress] = []
    train_student(config_of(world), progress=seen.append)
    steps = [state.step for state in seen if state.loss is not None]
    assert steps == sorted(steps)
    assert steps[-1] == seen[-1].steps == 4 * 7
    assert seen[-1].seconds_left == 0
    assert seen[-1].rows_per_second > 0


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            {"factory": "models_for_tests:mlp", "kwargs": {"classes": 6}},
            StudentError,
            r"\[2, 6\], expected \[2, 5\]",
        ),
        (
            {"factory": "models_for_tests:no_module"},
            StudentError,
            "returned a str, expected a torch.nn.Module",
        ),
        ({"factory": "models_for_tests:nothing_to_train"}, StudentError, "no parameter to train"),
        (
            {"factory": "models_for_tests:wants_images"},
            StudentError,
            "raised RuntimeError on a batch of shape",
        ),
        ({"factory": "models_for_tests:mlp", "kwargs": {"depth": 3}}, FactoryError, "student.*depth"),
        ({"factory": "models_for_tests:absent"}, FactoryError, "absent"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_training(
    world: Any, model: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = config_of(world, model=model)
    with pytest.raises(error, match=message):
        train_student(config)
    assert not (Path(config.output) / "checkpoint.safetensors").exists()


def test_misaligned_inputs_leave_an_earlier_result_alone_even_with_restart(world: Any) -> None:
    config = config_of(world)
    train_student(config)
    world.save(inputs=world.inputs[:100])
    with pytest.raises(MisalignedRows):
        train_student(config, restart=True)
    assert (Path(config.output) / "result.json").exists()


def test_an_output_that_cannot_be_made_is_refused(world: Any) -> None:
    (world.folder / "file").write_text("in the way")
    with pytest.raises(StudentError, match="cannot make the output folder"):
        train_student(config_of(world, "file/out"))


def test_an_unknown_device_is_refused(world: Any) -> None:
    with pytest.raises(StudentError, match=r"training.device 'tpu9'"):
        train_student(config_of(world, training={"device": "tpu9"}))
