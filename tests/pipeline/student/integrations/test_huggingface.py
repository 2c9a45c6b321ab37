"""Hugging Face's Trainer on a tokenised data set of the user's own, joined with a store by id."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tests.mended_torchvision import mend
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from softcask.pipeline.student.integrations.huggingface import (
    LABELS,
    TARGETS,
    SoftTargetCollator,
    SoftTargetMixin,
)
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.losses.hard import HardLabels
from softcask.pipeline.student.losses.logit_matching import LogitMatching
from softcask.storage_schemas.errors import ConfigError, MisalignedRows, StoreError

mend()

from transformers import (  # noqa: E402  # it imports torchvision
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

T, W = 4.0, 0.25


class StudentTrainer(SoftTargetMixin, Trainer):
    pass


def ids(rows: Iterable[int]) -> list[str]:
    return [f"row-{row:08d}" for row in rows]


def tokenised(world: Any, rows: Iterable[int], **columns: list[Any]) -> Dataset:
    """Sentences of different lengths whose words say nothing; `note` is a column that no model takes."""
    rows = list(rows)
    tokens = [[1 + (row + place) % 20 for place in range(2 + row % 5)] for row in rows]
    return Dataset.from_dict(
        {
            "sample_id": ids(rows),
            "input_ids": tokens,
            "attention_mask": [[1] * len(each) for each in tokens],
            "labels": [int(world.labels[row]) for row in rows],
            "note": [f"note {row}" for row in rows],
        }
        | columns
    )


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"[PAD]": 0} | {f"w{number}": number for number in range(1, 21)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words)), pad_token="[PAD]")


def model(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=21,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def collator(world: Any, **options: Any) -> SoftTargetCollator:
    given: dict[str, Any] = {"loss": Distillation(hard_label_weight=W), "temperature": T}
    return SoftTargetCollator(world.store, collator=DataCollatorWithPadding(tokenizer()), **(given | options))


def trainer(world: Any, folder: Path, train: Any, **options: Any) -> StudentTrainer:
    named: dict[str, Any] = {"data_collator": collator(world), "model": model(), "eval_dataset": None}
    named |= {name: options.pop(name) for name in [*named] if name in options}
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "trained"),
        "per_device_train_batch_size": 16,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return StudentTrainer(args=TrainingArguments(**(arguments | options)), train_dataset=train, **named)


def softmax(logits: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    powers = np.exp((logits - logits.max(-1, keepdims=True)).astype(np.float64) / temperature)
    return powers / powers.sum(-1, keepdims=True)


def teachers(world: Any, rows: list[int]) -> NDArray[np.float64]:
    """The ensemble's probabilities at T, from its logits, without the store."""
    return np.mean([softmax(world.logits[name][rows], T) for name in ("a", "b")], axis=0)


def test_a_batch_has_the_soft_targets_of_its_ids_in_whatever_order_they_come(world: Any) -> None:
    rows = [17, 3, 199, 4]
    features = list(tokenised(world, rows).remove_columns("note"))
    batch = collator(world)(features)
    assert set(batch) == {"input_ids", "attention_mask", "labels", TARGETS, LABELS}
    np.testing.assert_allclose(batch[TARGETS].numpy(), teachers(world, rows), atol=1e-4)
    assert batch[LABELS].tolist() == world.labels[rows].tolist()
    assert batch["input_ids"].shape == (4, 6)


def test_row_numbers_of_the_store_stand_for_ids(world: Any) -> None:
    rows = [17, 3, 199, 4]
    by_id, by_row = tokenised(world, rows), tokenised(world, rows, sample_id=rows)
    found = [list(each.remove_columns("note")) for each in (by_id, by_row)]
    assert torch.equal(collator(world)(found[0])[TARGETS], collator(world)(found[1])[TARGETS])


def test_the_loss_is_the_formula_in_float64(world: Any, tmp_path: Path) -> None:
    rows = list(range(40, 56))
    training = trainer(world, tmp_path, tokenised(world, rows))
    batch = next(iter(training.get_train_dataloader()))
    order = [
        next(r for r in rows if np.allclose(teachers(world, [r])[0], row, atol=1e-4))
        for row in batch[TARGETS].numpy()
    ]
    training.model.eval()
    loss, outputs = training.compute_loss(training.model, dict(batch), return_outputs=True)
    z_BC = outputs["logits"].detach().numpy()
    p_BC, q_BC = teachers(world, order), softmax(z_BC, T)
    soft_B = T**2 * (p_BC * (np.log(p_BC) - np.log(q_BC))).sum(-1)
    hard_B = -np.log(softmax(z_BC, 1.0))[np.arange(16), world.labels[order]]
    assert loss.item() == pytest.approx(((1 - W) * soft_B + W * hard_B).mean(), rel=1e-3)


@pytest.mark.parametrize("as_list", [False, True], ids=["datasets", "list"])
@pytest.mark.parametrize("remove", [True, False])
def test_ids_reach_the_collator_and_the_model_is_given_only_what_it_takes(
    world: Any, tmp_path: Path, as_list: bool, remove: bool
) -> None:
    rows = tokenised(world, range(32))
    if not remove:
        rows = rows.remove_columns("note")  # the user's affair then
    data: Any = list(rows) if as_list else rows
    training = trainer(world, tmp_path, data, remove_unused_columns=remove, max_steps=3, learning_rate=1e-2)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    assert training.train().training_loss > 0
    after = training.model.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_distillation_comes_nearer_to_the_teachers(world: Any, tmp_path: Path) -> None:
    rows = tokenised(world, range(32))
    training = trainer(
        world,
        tmp_path,
        rows,
        num_train_epochs=30,
        learning_rate=2e-2,
        data_collator=collator(world, loss=Distillation(hard_label_weight=0.0)),
        lr_scheduler_type="constant",
    )
    batch = collator(world)(list(rows.remove_columns("note")))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def distance() -> float:
        training.model.eval()
        with torch.no_grad():
            q_BC = softmax(training.model(**inputs).logits.numpy(), T)
        p_BC = teachers(world, list(range(32)))
        return float((p_BC * np.log(p_BC / q_BC)).sum(-1).mean())

    before = distance()
    training.train()
    assert distance() < before / 2


def test_accumulated_batches_are_the_step_of_one_large_batch(world: Any, tmp_path: Path) -> None:
    common: dict[str, Any] = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
    one = trainer(world, tmp_path, tokenised(world, range(16)), **common)
    several = trainer(
        world,
        tmp_path,
        tokenised(world, range(16)),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        **common,
    )
    one.train()
    several.train()
    for whole, parts in zip(one.model.parameters(), several.model.parameters(), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_evaluation_is_the_models_own_on_rows_that_no_store_knows(world: Any, tmp_path: Path) -> None:
    unknown = tokenised(world, range(16), sample_id=[f"new-{row}" for row in range(16)])
    for rows in (unknown, unknown.remove_columns("sample_id")):
        training = trainer(world, tmp_path, tokenised(world, range(16)), eval_dataset=rows)
        found = training.evaluate()
        inputs = DataCollatorWithPadding(tokenizer())(
            list(rows.select_columns(["input_ids", "attention_mask", "labels"]))
        )
        with torch.no_grad():
            expected = model().eval()(**inputs).loss
        assert found["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)
        assert training.predict(rows).predictions.shape == (16, 5)


@pytest.mark.parametrize(
    ("loss", "brings"), [(LogitMatching(), "logits"), (HardLabels(), "nothing")], ids=["logits", "labels"]
)
def test_other_losses_are_brought_what_they_need(world: Any, tmp_path: Path, loss: Any, brings: str) -> None:
    rows = [5, 6, 7]
    brought = collator(world, loss=loss)
    batch = brought(list(tokenised(world, rows).remove_columns("note")))
    if brings == "nothing":
        assert TARGETS not in batch
    else:
        expected = (world.logits["a"][rows] + world.logits["b"][rows]) / 2
        np.testing.assert_allclose(batch[TARGETS].numpy(), expected, atol=1e-2)
    training = trainer(world, tmp_path, tokenised(world, range(16)), data_collator=brought, max_steps=1)
    assert np.isfinite(training.train().training_loss)


def test_unlabelled_rows_take_the_stores_labels_and_workers_may_be_processes(
    world: Any, tmp_path: Path
) -> None:
    rows = tokenised(world, range(32)).remove_columns("labels")
    training = trainer(world, tmp_path, rows, dataloader_num_workers=2)
    batches = list(training.get_train_dataloader())
    assert sorted(torch.cat([batch[LABELS] for batch in batches]).tolist()) == sorted(
        world.labels[:32].tolist()
    )
    again = pickle.loads(pickle.dumps(collator(world)))  # noqa: S301  # what a spawned worker does
    features = list(rows.remove_columns("note"))[:3]
    assert torch.equal(again(features)[TARGETS], collator(world)(features)[TARGETS])


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"sample_id": ["nobody"] * 16}, MisalignedRows, r"16 of 16 rows of a batch are not in .*\(nobody"),
        ({"sample_id": [200] * 16}, MisalignedRows, r"16 of 16 rows .*\(200"),
        ({"sample_id": [-1] * 16}, MisalignedRows, r"16 of 16 rows"),
        ({"sample_id": [0.5] * 16}, ConfigError, "expected sample ids"),
        ({"sample_id": ids(range(1, 17))}, MisalignedRows, "another label here than in .* here, . stored"),
        ({"labels": [[0.0, 1.0]] * 16}, ConfigError, "labels must be one integer a row"),
    ],
)
def test_rows_that_do_not_match_are_refused(
    world: Any, columns: dict[str, list[Any]], error: type[Exception], message: str
) -> None:
    features = list(tokenised(world, range(16), **columns).remove_columns("note"))
    with pytest.raises(error, match=message):
        collator(world)(features)


def test_other_labels_are_taken_where_that_is_meant(world: Any) -> None:
    others = [(int(label) + 1) % 5 for label in world.labels[:16]]
    features = list(tokenised(world, range(16), labels=others).remove_columns("note"))
    assert collator(world, check_labels=False)(features)[LABELS].tolist() == others


def test_features_without_ids_are_told_from_which_column_they_should_come(world: Any) -> None:
    features = list(tokenised(world, range(4)).remove_columns(["note", "sample_id"]))
    with pytest.raises(ConfigError, match="no column 'sample_id' .*SoftTargetMixin"):
        collator(world)(features)


def test_what_cannot_work_is_refused_before_training(world: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a SoftTargetCollator"):
        trainer(
            world, tmp_path, tokenised(world, range(4)), data_collator=DataCollatorWithPadding(tokenizer())
        )
    with pytest.raises(ConfigError, match="has no teacher z"):
        collator(world, teachers=["z"])
    with pytest.raises(ConfigError, match="temperature"):
        collator(world, temperature=0.0)
    with pytest.raises(StoreError, match="there is no softcask store"):
        SoftTargetCollator(str(tmp_path / "gone"))


def test_the_tokenizer_is_saved_with_the_model_as_of_any_collator(world: Any, tmp_path: Path) -> None:
    training = trainer(world, tmp_path, tokenised(world, range(4)))
    training.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
