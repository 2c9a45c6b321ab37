"""What is trained, as plain values, and the record that each training leaves.

A record holds the run that it is of. Where the run is another one by now, the record does not count, and the
net is trained anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from examples.paper.rows import TEST
from examples.paper.teachers import Recipe
from softcask.storage_schemas.fingerprint import digest

Loss = Literal["hard", "distillation", "logit_matching"]

LR = 1e-3
"""Of all students but those of section `rate`, which tries others on held-out rows."""

_SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 3e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRun:
    """A net that is trained from labels alone, by this example's own script.

    Attributes:
        name: What it is called; unique with its seed.
        recipe: How it is trained.
        rows: Part of the training set it learns from.
        judged_on: Rows whose errors are counted.
    """

    name: str
    recipe: Recipe
    rows: str = "all"
    judged_on: str = TEST

    @property
    def seed(self) -> int:
        """Of its initial weights and all else that is drawn."""
        return self.recipe.seed

    def tiny(self) -> TeacherRun:
        """The same with next to no work, to try the whole way."""
        small = replace(self.recipe, hidden_sizes=_narrow(self.recipe.hidden_sizes), **_SHORT)
        return replace(self, recipe=small)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Teachers' logits of all 60,000 training rows, as `softcask precompute` keeps them.

    Attributes:
        name: What it is called.
        teachers: Its members.
    """

    name: str
    teachers: tuple[TeacherRun, ...]

    def tiny(self) -> Store:
        """The same with next to no work: two teachers at most."""
        return replace(self, teachers=tuple(teacher.tiny() for teacher in self.teachers[:2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRun:
    """A net that `softcask train` trains from a store.

    Attributes:
        name: What it is called; unique with its seed.
        store: Where its soft targets are.
        seed: Of initial weights and order.
        hidden_sizes: Units of each hidden layer.
        loss: What is minimised; soft targets alone where it is `distillation`.
        temperature: T; of no effect on the other losses.
        epochs: Passes over its rows.
        batch_size: Rows a step.
        lr: Learning rate of Adam at first; down to 0 by cosine.
        rows: Part of the training set it sees.
        judged_on: Rows whose errors are counted.
    """

    name: str
    store: Store
    seed: int
    hidden_sizes: Sequence[int] = (800, 800)
    loss: Loss = "distillation"
    temperature: float = 20.0
    epochs: int
    batch_size: int = 256
    lr: float = LR
    rows: str = "all"
    judged_on: str = TEST

    def tiny(self) -> StudentRun:
        """The same with next to no work, to try the whole way."""
        return replace(self, store=self.store.tiny(), hidden_sizes=_narrow(self.hidden_sizes), **_SHORT)

    def settings(self) -> dict[str, Any]:
        """What is said of it in a student's file, as `softcask train --set` takes it."""
        soft = {"targets.temperature": self.temperature} if self.loss == "distillation" else {}
        loss = {"loss": {"kind": self.loss}} if self.loss != "distillation" else {}
        return (
            soft
            | loss
            | {
                "model.kwargs": {"hidden_sizes": list(self.hidden_sizes)},
                "optimiser.lr": self.lr,
                "training.epochs": self.epochs,
                "training.batch_size": self.batch_size,
                "training.seed": self.seed,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherRun:
    """The members of a store as one: the mean of their probabilities is judged.

    Attributes:
        store: Whose members.
    """

    store: Store

    @property
    def name(self) -> str:
        """The store's, as an ensemble."""
        return f"{self.store.name} together"

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    @property
    def judged_on(self) -> str:
        """As its members are."""
        return self.store.teachers[0].judged_on

    def tiny(self) -> TogetherRun:
        """The same with next to no work."""
        return replace(self, store=self.store.tiny())


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasRun:
    """A student whose biases of some classes are corrected, by what counts fewest errors on held-out rows.

    Attributes:
        student: Which has not seen the held-out rows.
        classes: Whose biases are moved, by one offset.
    """

    student: StudentRun
    classes: tuple[int, ...]

    @property
    def name(self) -> str:
        """The student's, as corrected."""
        return f"{self.student.name} corrected"

    @property
    def seed(self) -> int:
        """The student's."""
        return self.student.seed

    @property
    def judged_on(self) -> str:
        """As the student is."""
        return self.student.judged_on

    def tiny(self) -> BiasRun:
        """The same with next to no work."""
        return replace(self, student=self.student.tiny())


Run: TypeAlias = TeacherRun | StudentRun | TogetherRun | BiasRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What came of a run; a file of `results/`.

    Attributes:
        run: The run, as it was.
        errors: Rows that it gets wrong, of `rows`.
        rows: Rows that it was judged on.
        wrong_by_class: The same errors by label.
        seconds: Wall time of its training.
        cpu_seconds: CPU time of it.
        teachers: Digests of the nets that it is or that it learnt from, by name.
        versions: Of what computed it.
        offset: Of a corrected bias: what was added to it.
    """

    run: dict[str, Any]
    errors: int
    rows: int
    wrong_by_class: Sequence[int]
    seconds: float
    cpu_seconds: float
    teachers: dict[str, str]
    versions: dict[str, str]
    offset: float | None = None

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        fields = (f' "{name}": {json.dumps(value)}' for name, value in asdict(self).items())
        aside.write_text("{\n" + ",\n".join(fields) + "\n}\n", "utf-8")
        aside.replace(path)


def described(run: Run) -> dict[str, Any]:
    """A run as its record keeps it; of other runs that it builds on, which have records, a digest."""
    fields: dict[str, Any] = {"kind": type(run).__name__} | json.loads(json.dumps(asdict(run)))
    if isinstance(run, StudentRun | TogetherRun):
        fields["store"] = {label(teacher): digest(described(teacher)) for teacher in run.store.teachers}
    if isinstance(run, BiasRun):
        fields["student"] = {label(run.student): digest(described(run.student))}
    return fields


def label(run: Run) -> str:
    """Name and seed, as a file or a teacher of a store is called."""
    return f"{re.sub(r'[^a-z0-9.]+', '-', run.name.lower())}-seed{run.seed}"


def read_record(folder: Path, run: Run) -> Record | None:
    """The record of a run, if there is one and it is of this very run.

    Raises:
        ValueError: The file is no record.
    """
    path = folder / f"{label(run)}.json"
    if not path.is_file():
        return None
    try:
        record = Record(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a record of a run ({error}); remove it to run that again") from error
    return record if record.run == described(run) else None


def _narrow(hidden_sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(size, 64) for size in hidden_sizes)
