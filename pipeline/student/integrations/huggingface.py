"""Stored soft targets in Hugging Face's Trainer: a collator brings them, and a mixin learns from them.

    class StudentTrainer(SoftTargetMixin, Trainer): ...

    collator = SoftTargetCollator("out/cask", temperature=4, collator=DataCollatorWithPadding(tokenizer))
    StudentTrainer(model, arguments, train_dataset=tokenised, data_collator=collator).train()

The user's own data set, tokenised or transformed by whatever made it, is joined by id: it has a column of the
store's sample ids. This module needs no transformers to be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.student.loading.joining import shown
from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.errors import ConfigError, MisalignedRows

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

TARGETS, LABELS = "soft_targets", "soft_target_labels"
"""What the collator adds to a batch: `[B, C]` float32, and `[B]` int64 with -1 where a row has no label."""

Collator = Callable[[list[dict[str, Any]]], MutableMapping[str, Any]]


class SoftTargetCollator:
    """Makes a batch as another collator does, and adds its rows' soft targets.

    Picklable and safe in the workers of a DataLoader, forked or spawned.

    Attributes:
        loss: What is minimised.
        temperature: T of the soft targets and of the loss.
        id_column: Name of the features' column that says which row of the store each is.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        loss: LossOptions | None = None,
        temperature: float = 4.0,
        teachers: Sequence[str] | None = None,
        rule: str = "mean",
        teacher_weights: Sequence[float] | None = None,
        collator: Collator | None = None,
        id_column: str = "sample_id",
        check_labels: bool = True,
    ) -> None:
        """Open the store; reads rows' ids, and no logits.

        Args:
            store: A path, a URL, or an open store.
            loss: Of whatever kind; None: distillation.
            temperature: T, above 0.
            teachers: Names; None: all members.
            rule: How they are combined.
            teacher_weights: One a teacher; None: equal.
            collator: Makes the rest of the batch, as `DataCollatorWithPadding`; None: transformers'
                `default_data_collator`.
            id_column: Column of sample ids (strings), or of row numbers of the store (integers).
            check_labels: Refuse a row whose label is not the store's.

        Raises:
            ConfigError: Not a temperature, unknown teachers, or a loss that this collator does not serve.
            StoreError: The store cannot be opened, or holds nothing for this loss at this temperature.
        """
        self.loss = loss if loss is not None else Distillation()
        self.temperature = temperature
        self.id_column = id_column
        opened = open_store(store) if isinstance(store, str) else store
        self._targets = SoftTargets(opened, teachers, rule, teacher_weights)
        if self.loss.needs == "probabilities":
            self._targets.check_temperature(temperature)
        elif self.loss.needs == "logits":
            self._targets.check_logits()
        elif self.loss.needs != "labels":
            raise ConfigError(
                f"a loss of kind {self.loss.kind!r} needs {self.loss.needs}, which this collator does not "
                "bring; choose one that learns from soft targets, logits or labels"
            )
        self._collator = collator
        self._check_labels = check_labels

    @property
    def tokenizer(self) -> Any:
        """That of the other collator, which a Trainer saves beside the model."""
        return getattr(self._collator, "tokenizer", None)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> MutableMapping[str, Any]:
        """The batch, with `TARGETS` and `LABELS` in it.

        Raises:
            MisalignedRows: A row that the store does not have, or that has another label there.
            ConfigError: The features have no column of ids.
        """
        rows_B = self._rows(features)
        batch = self.without_targets(features)
        labels_B = self._labels(batch, rows_B)
        if self.loss.needs == "probabilities":
            batch[TARGETS] = to_tensor(self._targets.probabilities(rows_B, self.temperature))
        elif self.loss.needs == "logits":
            batch[TARGETS] = to_tensor(self._targets.logits(rows_B))
        batch[LABELS] = to_tensor(labels_B)
        return batch

    def without_targets(self, features: Sequence[Mapping[str, Any]]) -> MutableMapping[str, Any]:
        """The batch as the other collator makes it, of features without the column of ids."""
        others = [{k: v for k, v in each.items() if k != self.id_column} for each in features]
        if self._collator is None:
            from transformers import default_data_collator

            self._collator = default_data_collator
        return self._collator(others)

    def _rows(self, features: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        store = self._targets.store
        if lacking := [each for each in features if self.id_column not in each]:
            raise ConfigError(
                f"a training row has no column {self.id_column!r} (it has {', '.join(lacking[0])}): keep the "
                f"sample ids of {store.uri} as a column of the data set, and train with a Trainer that has "
                "SoftTargetMixin, or with remove_unused_columns=False"
            )
        names = [each[self.id_column] for each in features]
        if all(isinstance(name, str) for name in names):
            rows_B = store.rows.find(names)
            known_B = rows_B >= 0
        else:
            rows_B = np.asarray([_number(name, self.id_column) for name in names], np.int64)
            known_B = (rows_B >= 0) & (rows_B < len(store.rows))
        if not known_B.all():
            unknown = [str(name) for name, known in zip(names, known_B, strict=True) if not known]
            raise MisalignedRows(
                f"{len(unknown)} of {len(names)} rows of a batch are not in {store.uri} ({shown(unknown)}); "
                "train on rows that were labelled, or label these"
            )
        return rows_B

    def _labels(self, batch: Mapping[str, Any], rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """The batch's own labels, else the store's, -1 where there is none."""
        stored_B = self._targets.store.rows.labels[rows_B]
        own = batch.get("labels")
        if own is None:
            return stored_B
        if own.dim() != 1 or own.is_floating_point():
            raise ConfigError(
                f"labels are {own.dtype} of shape {list(own.shape)}; soft targets are of one class a row: "
                "labels must be one integer a row"
            )
        own_B = np.where(own.numpy() >= 0, own.numpy(), -1).astype(np.int64)
        differing = (own_B >= 0) & (stored_B >= 0) & (own_B != stored_B)
        if self._check_labels and differing.any():
            at = int(np.flatnonzero(differing)[0])
            store = self._targets.store
            raise MisalignedRows(
                f"{np.count_nonzero(differing)} of {len(rows_B)} rows of a batch have another label here "
                f"than in {store.uri} ({store.rows.sample_ids[rows_B[at]]}: {own_B[at]} here, {stored_B[at]} "
                "stored): their ids or classes are in another order. Set check_labels=False if that is meant"
            )
        return np.where(own_B >= 0, own_B, stored_B)


class SoftTargetMixin(_Trainer):
    """Makes a Trainer learn from what a `SoftTargetCollator` brings.

    `class MyTrainer(SoftTargetMixin, Trainer)`, in this order. Evaluation knows nothing of soft targets: its
    loss is the model's own, and its rows need no ids.
    """

    data_collator: Any
    _signature_columns: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As a Trainer.

        Raises:
            ConfigError: Its `data_collator` is no `SoftTargetCollator`, or it has another loss besides.
        """
        super().__init__(*arguments, **named)
        if not isinstance(self.data_collator, SoftTargetCollator):
            raise ConfigError(
                f"data_collator is a {type(self.data_collator).__name__}, expected a SoftTargetCollator; "
                "give yours to it: SoftTargetCollator(store, collator=yours)"
            )
        if getattr(self, "compute_loss_func", None) is not None:
            raise ConfigError("compute_loss_func is a second loss; give the collator the one that is meant")
        self._soft = self.data_collator
        # A loss is a mean over a batch, which the Trainer has to divide by the batches that it accumulates.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The collator's loss where a batch has soft targets, else the Trainer's own."""
        if LABELS not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Without labels a model does not compute a loss of its own besides.
        unwanted = {TARGETS, LABELS, *self.label_names}
        outputs = model(**{name: value for name, value in inputs.items() if name not in unwanted})
        logits_BC = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        loss = self._soft.loss.compute(logits_BC, inputs.get(TARGETS), inputs[LABELS], self._soft.temperature)
        return (loss, outputs) if return_outputs else loss

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As a Trainer, of rows that need not be in the store."""
        with self._without_targets():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As a Trainer, of rows that need not be in the store."""
        with self._without_targets():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _without_targets(self) -> Iterator[None]:
        self.data_collator = self._soft.without_targets
        try:
            yield
        finally:
            self.data_collator = self._soft

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the column of ids, which no model takes, when the Trainer removes the others."""
        super()._set_signature_columns_if_needed()
        if self._soft.id_column not in self._signature_columns:
            self._signature_columns.append(self._soft.id_column)


def _number(value: Any, column: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer | torch.Tensor):
        raise ConfigError(
            f"column {column!r} holds {value!r} ({type(value).__name__}); expected sample ids (strings) or "
            "row numbers of the store (integers)"
        )
    return int(value)
