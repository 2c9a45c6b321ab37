"""A trained student's bias, corrected: rows that are really held out, a shift, and where it is kept.

A model is a function from inputs to logits to softcask, and need not end in a linear layer. So the parameter
to add the shift to is found by trial: adding it must move exactly those logits, by exactly that. Where no
parameter does, the shift is kept in a file beside the model, for whoever uses it to add to the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.student.bias import BiasCorrectionOptions, fit_shift
from softcask.pipeline.student.training.checkpoints import save_tensors
from softcask.pipeline.student.training.evaluation import Evaluation, LogitsOf
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.storage_schemas.errors import StudentError, TransferSetError
from softcask.storage_schemas.fingerprint import canonical

BIAS = "logit_bias.safetensors"

_MOST_SHARED = 0.01
_EXACT = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a bias is fitted on.

    Attributes:
        rows: Labelled rows.
        options: What was asked for.
        classes: Indices of the classes that are shifted, rising.
        class_names: Their names.
        asked: JSON-able: what decides the correction of a trained model, free of paths.
    """

    rows: Evaluation
    options: BiasCorrectionOptions
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    asked: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What was done to a model.

    Attributes:
        asked: See `HeldOut`.
        class_names: The classes that are shifted.
        shift: Added to the logits of the classes, in nats.
        held_out_rows: Rows that it was fitted on.
        held_out_errors: Of those, not recognised before and after.
        parameter: Name of the model's parameter that holds it; None where none does.
        logit_bias_C: What is added to all logits.
        errors: Of the evaluation's rows, not recognised before and after; None without evaluation.
        errors_in_classes: Of those of them that are of the classes.
    """

    asked: dict[str, Any]
    class_names: tuple[str, ...]
    shift: float
    held_out_rows: int
    held_out_errors: tuple[int, int]
    parameter: str | None
    logit_bias_C: torch.Tensor
    errors: tuple[int, int] | None = None
    errors_in_classes: tuple[int, int] | None = None

    def apply(self, logits_of: LogitsOf) -> LogitsOf:
        """The corrected model's logits, from those of the model as it stands now."""
        if self.parameter is not None:
            return logits_of

        def corrected(inputs_B: torch.Tensor) -> torch.Tensor:
            logits_BC = logits_of(inputs_B)
            return logits_BC + self.logit_bias_C.to(logits_BC)

        return corrected

    def save(self, output: Path) -> None:
        """Write the shift beside the model, where no parameter holds it; take out what an earlier one left.

        Raises:
            StudentError: The filesystem refused.
        """
        if self.parameter is None:
            save_tensors(output / BIAS, {"logit_bias": self.logit_bias_C})
        else:
            (output / BIAS).unlink(missing_ok=True)

    def facts(self) -> dict[str, Any]:
        """As `result.json` has it."""
        return {
            "asked": self.asked,
            "classes": list(self.class_names),
            "shift": self.shift,
            "held_out_rows": self.held_out_rows,
            "held_out_errors": list(self.held_out_errors),
            "errors": None if self.errors is None else list(self.errors),
            "errors_in_classes": None if self.errors_in_classes is None else list(self.errors_in_classes),
            "parameter": self.parameter,
            "file": BIAS if self.parameter is None else None,
        }


def open_held_out(
    options: BiasCorrectionOptions, class_names: Sequence[str], inputs: TransferSet, tests: TransferSet | None
) -> HeldOut:
    """Open the held-out rows, before anything is trained.

    Args:
        options: What is asked for.
        class_names: The store's.
        inputs: What the student is trained on.
        tests: What it is evaluated on.

    Raises:
        ConfigError: Unknown classes.
        TransferSetError: Rows of another shape than the student's, or without labels.
        StudentError: The held-out rows are those that it is evaluated on.
    """
    held_out = options.held_out.open()
    facts = canonical(held_out.describe())
    if tests is not None and facts == canonical(tests.describe()):
        raise StudentError(
            "bias_correction.held_out names the evaluation's own rows; errors on rows that a bias was fitted "
            "to say nothing of others. Hold out rows of the training set"
        )
    if held_out.input_shape != inputs.input_shape:
        raise TransferSetError(
            f"the rows of bias_correction.held_out have the shape {list(held_out.input_shape)}, those "
            f"trained on {list(inputs.input_shape)}; expected the same"
        )
    classes = options.indices(class_names)
    return HeldOut(
        rows=Evaluation(held_out, len(class_names)),
        options=options,
        classes=classes,
        class_names=tuple(class_names[one] for one in classes),
        asked={"classes": list(classes), "objective": options.objective, "held_out": facts},
    )


def correct(
    model: torch.nn.Module,
    logits_of: LogitsOf,
    held_out: HeldOut,
    *,
    trained_hashes: NDArray[np.void],
    tests: Evaluation | None,
    sample_B: torch.Tensor,
) -> Correction:
    """Fit the shift of a trained model, and add it to the parameter that is its output's bias, if one is.

    Args:
        model: In eval mode; changed in place, or not at all.
        logits_of: Its logits, from rows as the transfer set keeps them.
        held_out: What to fit on.
        trained_hashes: Content of the rows that it was trained on.
        tests: What it is evaluated on.
        sample_B: A few rows to try it on.

    Raises:
        StudentError: More than a few held-out rows were trained on or are evaluated on, or nothing holds the
            shift back.
        TransferSetError: A row cannot be read.
    """
    kept_N = _only_held_out(held_out.rows, trained_hashes, tests)
    before_N = tests.predictions(logits_of) if tests is not None else None
    logits_NC = held_out.rows.logits(logits_of)[kept_N]
    labels_N = held_out.rows.labels_N[kept_N]
    shift = fit_shift(logits_NC, labels_N, held_out.classes, held_out.options.objective)
    bias_C = np.zeros(logits_NC.shape[1], dtype=np.float32)
    bias_C[list(held_out.classes)] = shift
    logit_bias_C = torch.from_numpy(bias_C)
    correction = Correction(
        asked=held_out.asked,
        class_names=held_out.class_names,
        shift=shift,
        held_out_rows=len(labels_N),
        held_out_errors=_wrong(labels_N, logits_NC.argmax(axis=1), (logits_NC + bias_C).argmax(axis=1)),
        parameter=_add_to_output(model, logit_bias_C, logits_of, sample_B),
        logit_bias_C=logit_bias_C,
    )
    if tests is None or before_N is None:
        return correction
    after_N = tests.predictions(correction.apply(logits_of))
    ours_N = np.isin(tests.labels_N, held_out.classes)
    return replace(
        correction,
        errors=_wrong(tests.labels_N, before_N, after_N),
        errors_in_classes=_wrong(tests.labels_N[ours_N], before_N[ours_N], after_N[ours_N]),
    )


def _wrong(
    labels_N: NDArray[np.int64], before_N: NDArray[np.int64], after_N: NDArray[np.int64]
) -> tuple[int, int]:
    return int((before_N != labels_N).sum()), int((after_N != labels_N).sum())


def _only_held_out(
    rows: Evaluation, trained_hashes: NDArray[np.void], tests: Evaluation | None
) -> NDArray[np.bool_]:
    """Which rows are neither trained nor evaluated on; a few that are, images that come twice, are left out.

    Raises:
        StudentError: It is more than a few.
    """
    prefixes_N = _prefixes(rows.hashes())
    tested = tests.hashes() if tests is not None else trained_hashes[:0]
    shared_N = np.zeros(len(rows), dtype=bool)
    for others, what in ((trained_hashes, "trained on"), (tested, "evaluated on")):
        same_N = np.isin(prefixes_N, _prefixes(others))
        if same_N.mean() > _MOST_SHARED:
            raise StudentError(
                f"{int(same_N.sum())} of the {len(rows)} rows of bias_correction.held_out are rows that the "
                f"student is {what}; a bias is fitted on rows that are neither. Hold some out of both"
            )
        shared_N |= same_N
    return ~shared_N


def _prefixes(hashes_N: NDArray[np.void]) -> NDArray[np.uint64]:
    """The first 64 bits of hashes, enough to know rows apart, which numpy can compare."""
    return np.ascontiguousarray(hashes_N).view(np.uint64)[::2]


@torch.no_grad()
def _add_to_output(
    model: torch.nn.Module, logit_bias_C: torch.Tensor, logits_of: LogitsOf, sample_B: torch.Tensor
) -> str | None:
    """Add to the parameter that moves each logit by just that; its name, or None with the model as it was."""
    before_BC = logits_of(sample_B)
    wanted_C = logit_bias_C.to(before_BC)
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.shape != wanted_C.shape:
            continue
        original = parameter.clone()
        parameter.add_(wanted_C.to(parameter))
        moved_BC = logits_of(sample_B) - before_BC
        if ((moved_BC - wanted_C).abs() <= _EXACT * (1 + before_BC.abs())).all():
            return name
        parameter.copy_(original)
    return None
