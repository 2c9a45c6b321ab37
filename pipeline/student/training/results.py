"""What a training tells: while it runs, and when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softcask.storage_schemas.errors import StudentError


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentProgress:
    """Where a training stands.

    Attributes:
        message: Something worth a line, once; None in a plain tick.
        epoch: Epoch being trained, from 0; `epochs` when all are done.
        epochs: Of the whole training.
        step: Steps done, over all epochs.
        steps: Of the whole training.
        loss: Mean loss of this epoch so far; None before its first step.
        rows_per_second: Rows trained a second since this process began; 0 before its first step.
        seconds_left: Estimated; None before the first step.
        errors: Test errors, right after they were counted.
    """

    message: str | None = None
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    rows_per_second: float = 0.0
    seconds_left: float | None = None
    errors: int | None = None


OnProgress = Callable[[StudentProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentResult:
    """What came of a training; `result.json` in its output.

    Attributes:
        errors: Labelled test rows whose top-1 is not the label, of the model as it is saved; None without
            evaluation.
        test_rows: Labelled test rows.
        errors_by_epoch: After each epoch, before any correction of a bias; None where they were not counted.
        evaluation: What the test set said of itself, to know whether it is still the same.
        loss: Mean loss of the last epoch.
        loss_kind: What was minimised.
        temperature: T of the soft targets; of the first epoch, where it moved.
        teachers: Whose logits they were made from.
        teacher_passes: Passes of a teacher that this training needed: none, ever.
        rows: Rows an epoch.
        epochs: Epochs trained, in all processes that took part.
        parameters: Numbers in the model that are trained.
        seconds: Wall time of training and evaluation, in all processes.
        cpu_seconds: CPU time of the same.
        dtype: What forward passes computed with.
        device: Where.
        model: The trained weights.
        last_temperature: T of the last epoch, where it moved; None where it did not.
        bias_correction: What was asked for, the `shift` in nats, errors `[before, after]` on the held-out
            rows, on the evaluation and on its rows of those classes, and what holds the shift: a `parameter`
            of the model, or a `file` beside it; None where nothing was asked for.
    """

    errors: int | None
    test_rows: int | None
    errors_by_epoch: tuple[int | None, ...]
    evaluation: dict[str, Any] | None
    loss: float
    loss_kind: str
    temperature: float
    teachers: tuple[str, ...]
    teacher_passes: int
    rows: int
    epochs: int
    parameters: int
    seconds: float
    cpu_seconds: float
    dtype: str
    device: str
    model: str
    last_temperature: float | None = None
    bias_correction: dict[str, Any] | None = None

    def to_json(self) -> str:
        """As it stands in `result.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> StudentResult | None:
        """The result in a file; None where there is none.

        Raises:
            StudentError: The file is not a result.
        """
        if not path.is_file():
            return None
        try:
            fields = json.loads(path.read_text("utf-8"))
            lists = {name: tuple(fields[name]) for name in ("errors_by_epoch", "teachers")}
            return cls(**{**fields, **lists})
        except (ValueError, TypeError, KeyError) as error:
            raise StudentError(f"{path} is not a result of softcask ({error}); move it away") from error
