"""The training loop of one process: epochs over stored soft targets, with checkpoints, then a result.

No teacher runs here and none can: the student's side does not know how to build one.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from softcask.pipeline.student.options import Dtype
from softcask.pipeline.student.training.bias_correction import BIAS, Correction, correct
from softcask.pipeline.student.training.building import (
    StudentData,
    build_model,
    choose_device,
    identity,
    open_data,
)
from softcask.pipeline.student.training.checkpoints import (
    Kept,
    TrainingState,
    check_identity,
    read_state,
    restore,
    save_checkpoint,
    save_model,
    save_tensors,
    save_text,
)
from softcask.pipeline.student.training.curve import LossCurve
from softcask.pipeline.student.training.optimisers import build_optimiser, learning_rate, set_learning_rate
from softcask.pipeline.student.training.precision import Precision, fastest
from softcask.pipeline.student.training.process import (
    Clock,
    random_state,
    seed_torch,
    set_random_state,
    torch_left_as_found,
)
from softcask.pipeline.student.training.results import OnProgress, StudentProgress, StudentResult
from softcask.pipeline.student.training.savings import SAVINGS, savings_of
from softcask.pipeline.student.training.step import StudentStep
from softcask.storage_schemas.errors import StudentError

if TYPE_CHECKING:
    from softcask.pipeline.student.config import StudentConfig

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
LOSSES = "losses.safetensors"
RESULT = "result.json"


def train_student(
    config: StudentConfig, *, progress: OnProgress | None = None, restart: bool = False
) -> StudentResult:
    """Train a student from a store, or go on where an interrupted training stood.

    Writes `checkpoint.safetensors` after each epoch, and within epochs as `config.training` says; at the end
    `model.safetensors`, `losses.safetensors` (`losses`: of each step, float64), `result.json` and
    `savings.json`; all to `config.output`. Where all epochs are done already, nothing is trained.

    Args:
        config: What to train; see `softcask.pipeline.student.config.load_student`.
        progress: Called often, from this thread.
        restart: Discard what an earlier training left in the output.

    Raises:
        MisalignedRows: Inputs and soft targets do not describe the same rows.
        CheckpointError: The output holds another training, or a damaged one.
        StudentError: The model does not fit, the loss is no longer finite, or the output cannot be written.
        StoreError: The store cannot be read.
    """
    output = _prepare_output(Path(config.output))
    with torch_left_as_found(config.training.num_threads):
        training = _Training(config, open_data(config), output, progress)
        if restart:
            _discard(output)
        return training.run()


class _Training:
    """One training in this process."""

    def __init__(
        self, config: StudentConfig, data: StudentData, output: Path, progress: OnProgress | None
    ) -> None:
        self._config = config
        self._data = data
        self._output = output
        self._progress = progress
        self._epochs = config.training.epochs
        self._steps = data.loader.steps_per_epoch * self._epochs
        self._device = choose_device(config.training.device)
        self._model = build_model(config, data, self._device)
        self._optimiser = self._optimiser_of(self._model)
        self._step = StudentStep(
            preprocessing=config.preprocessing,
            loss=config.loss,
            device=self._device,
        )
        self._clock = Clock()
        self._trained_rows = 0
        self._errors: dict[int, int] = {}
        self._curve = LossCurve(data.loader.steps_per_epoch)
        self._random: Mapping[str, torch.Tensor] = {}
        self._saved = time.monotonic(), 0

    def run(self) -> StudentResult:
        """Train what is left, evaluate, and write the result."""
        state = self._begin()
        if state.epoch == self._epochs and (result := self._earlier_result()) is not None:
            self._tell(self._epochs, f"already trained: all {self._epochs} epochs are in {self._output}")
            if not (self._output / SAVINGS).exists():
                self._save_savings()
            return result
        self._clock = Clock(seconds=state.seconds, cpu_seconds=state.cpu_seconds)
        precision = Precision(dtype=state.dtype, device_type=self._device.type)
        while state.epoch < self._epochs:
            self._train_epoch(state, precision)
            state = self._after_epoch(state)
            self._save_checkpoint(state)
        correction = self._correct_bias()
        save_model(self._output / MODEL, self._model)
        save_tensors(self._output / LOSSES, {"losses": self._curve.tensor()})
        result = self._result(state, correction)
        save_text(self._output / RESULT, result.to_json())
        self._save_savings()
        return result

    def _begin(self) -> TrainingState:
        """The state to go on from: a checkpoint's, or a new one."""
        now = identity(self._config, self._data)
        state = read_state(self._output / CHECKPOINT)
        if state is None:
            return TrainingState(identity=now, dtype=self._choose_dtype())
        check_identity(self._output / CHECKPOINT, state, now)
        kept = restore(self._output / CHECKPOINT, self._model, self._optimiser)
        self._curve.restore(kept.losses, self._done(state))
        self._random = kept.random
        if state.epoch < self._epochs:
            self._tell(state.epoch, f"going on after {self._told(state)}", step=self._done(state))
        return state

    def _told(self, state: TrainingState) -> str:
        within = self._done(state) - state.epoch * self._steps_per_epoch
        step = f"step {within} of {self._steps_per_epoch} in " if within else ""
        return f"{step}epoch {state.epoch + bool(within)} of {self._epochs}"

    def _choose_dtype(self) -> Dtype:
        if self._config.training.dtype != "auto":
            return self._config.training.dtype
        model = copy.deepcopy(self._model).train()
        optimiser = self._optimiser_of(model)
        batch = next(iter(self._data.loader))

        def trial(precision: Precision) -> None:
            self._step.train(model, optimiser, batch, precision).item()

        precision, sentence = fastest(trial, self._device.type)
        self._tell(0, sentence)
        return precision.dtype

    def _train_epoch(self, state: TrainingState, precision: Precision) -> None:
        """Train an epoch, or what is left of it."""
        self._enter(state)
        self._model.train()
        curve = self._curve
        for batch in self._data.loader:
            rate = learning_rate(self._config.optimiser, len(curve), self._steps)
            set_learning_rate(self._optimiser, rate)
            self._trained_rows += len(batch)
            due = curve.add(self._step.train(self._model, self._optimiser, batch, precision))
            within = len(curve) % self._steps_per_epoch
            save = within > 0 and self._is_due(len(curve))
            if due or save:
                self._look(state.epoch)
            if save:
                position = self._data.loader.state_dict()
                self._save_checkpoint(replace(state, step=len(curve), position=position))

    def _enter(self, state: TrainingState) -> None:
        """Random state and place of a training as it stood, at the begin of an epoch or within it."""
        if state.position is not None:
            self._data.loader.load_state_dict(state.position)
            set_random_state(self._random, self._device)
        else:
            self._data.loader.set_epoch(state.epoch)
            # Seeded anew for each epoch, so that dropout after a resumption is what it would have been.
            seed_torch(self._config.training.seed, state.epoch)

    def _look(self, epoch: int) -> None:
        """Look at the last steps' losses, and tell."""
        odd = self._curve.look()
        if odd is not None:
            step, loss = odd
            optimiser, steps = self._config.optimiser, self._steps_per_epoch
            temperature = self._config.targets.temperatures(self._epochs)[epoch]
            raise StudentError(
                f"the loss became {loss} in epoch {epoch + 1}, step {step - epoch * steps + 1} of {steps} "
                f"({optimiser.kind}, lr {optimiser.lr:g}, T {temperature:g}). Try a "
                "lower optimiser.lr (a tenth), schedule one_cycle, adam instead of sgd, or float32. "
                f"Checkpoints up to epoch {epoch} are kept in {self._output}"
            )
        self._tell(epoch, step=len(self._curve), loss=self._curve.mean(epoch))

    def _is_due(self, step: int) -> bool:
        """Whether to keep a checkpoint within an epoch."""
        options, (moment, saved) = self._config.training, self._saved
        if options.checkpoint_every_steps is not None and step - saved >= options.checkpoint_every_steps:
            return True
        seconds = options.checkpoint_every_seconds
        return seconds is not None and time.monotonic() - moment >= seconds

    def _save_checkpoint(self, state: TrainingState) -> None:
        seconds, cpu_seconds = self._clock.read()
        state = replace(state, seconds=seconds, cpu_seconds=cpu_seconds)
        kept = Kept(losses=self._curve.tensor(), random=random_state(self._device))
        save_checkpoint(self._output / CHECKPOINT, self._model, self._optimiser, state, kept)
        self._saved = time.monotonic(), self._done(state)

    def _after_epoch(self, state: TrainingState) -> TrainingState:
        counted = self._config.training.evaluate_every_epoch
        return replace(
            state,
            epoch=state.epoch + 1,
            step=(state.epoch + 1) * self._steps_per_epoch,
            position=None,
            loss=self._curve.mean(state.epoch),
            errors_by_epoch=(
                *state.errors_by_epoch,
                self._count_errors(state.epoch + 1) if counted else None,
            ),
        )

    @property
    def _steps_per_epoch(self) -> int:
        return self._data.loader.steps_per_epoch

    def _done(self, state: TrainingState) -> int:
        """Steps done."""
        return state.epoch * self._steps_per_epoch if state.step is None else state.step

    def _count_errors(self, epochs_done: int) -> int | None:
        """Test errors as the model stands after so many epochs, counted once; None without evaluation."""
        if self._data.evaluation is None:
            return None
        if epochs_done not in self._errors:
            self._model.eval()
            errors = self._data.evaluation.errors(lambda inputs: self._step.logits(self._model, inputs))
            self._errors[epochs_done] = errors
            self._tell(epochs_done, errors=errors)
        return self._errors[epochs_done]

    def _correct_bias(self) -> Correction | None:
        """Mend the trained model's bias, in the model or beside it, if that is asked for."""
        data = self._data
        if data.held_out is None:
            (self._output / BIAS).unlink(missing_ok=True)
            return None
        self._model.eval()
        correction = correct(
            self._model,
            lambda inputs_B: self._step.logits(self._model, inputs_B),
            data.held_out,
            trained_hashes=data.store.rows.content_hashes[data.rows.rows.rows_N],
            tests=data.evaluation,
            sample_B=data.sample_B,
        )
        correction.save(self._output)
        if correction.errors is not None:
            self._errors[self._epochs] = correction.errors[1]
        return correction

    def _result(self, state: TrainingState, correction: Correction | None) -> StudentResult:
        errors = self._count_errors(self._epochs)
        temperatures = self._config.targets.temperatures(self._epochs)
        seconds, cpu_seconds = self._clock.read()
        return StudentResult(
            errors=errors,
            test_rows=len(self._data.evaluation) if self._data.evaluation is not None else None,
            errors_by_epoch=state.errors_by_epoch,
            evaluation=self._data.evaluation_facts,
            loss=state.loss,
            loss_kind=self._config.loss.kind,
            temperature=temperatures[0],
            last_temperature=temperatures[-1] if temperatures[-1] != temperatures[0] else None,
            bias_correction=correction.facts() if correction is not None else None,
            teachers=self._data.targets.teachers,
            teacher_passes=0,
            rows=self._data.loader.rows_per_epoch,
            epochs=self._epochs,
            parameters=sum(p.numel() for p in self._model.parameters() if p.requires_grad),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            dtype=state.dtype,
            device=str(self._device),
            model=str(self._output / MODEL),
        )

    def _save_savings(self) -> None:
        """What this training reused; of labels alone, nothing."""
        teachers = () if self._config.loss.needs == "labels" else self._data.targets.teachers
        rows = self._data.loader.rows_per_epoch
        found = savings_of(self._data.store, teachers, rows=rows, epochs=self._epochs)
        save_text(self._output / SAVINGS, found.to_bytes().decode())

    def _earlier_result(self) -> StudentResult | None:
        """The result in the output, if it is of this evaluation and correction and its model is there."""
        result, held_out = StudentResult.read(self._output / RESULT), self._data.held_out
        if result is None or result.evaluation != self._data.evaluation_facts:
            return None
        asked = None if held_out is None else held_out.asked
        if asked != (result.bias_correction and result.bias_correction["asked"]):
            return None
        return result if (self._output / MODEL).is_file() else None

    def _optimiser_of(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return build_optimiser(self._config.optimiser, trained, self._device)

    def _tell(
        self,
        epoch: int,
        message: str | None = None,
        *,
        step: int | None = None,
        loss: float | None = None,
        errors: int | None = None,
    ) -> None:
        if self._progress is None:
            return
        step = epoch * self._steps_per_epoch if step is None else step
        rate = self._trained_rows / self._clock.running() if self._trained_rows else 0.0
        rows_left = (self._steps - step) * self._data.loader.rows_per_epoch / self._steps_per_epoch
        self._progress(
            StudentProgress(
                message=message,
                epoch=epoch,
                epochs=self._epochs,
                step=step,
                steps=self._steps,
                loss=loss,
                rows_per_second=rate,
                seconds_left=rows_left / rate if rate else None,
                errors=errors,
            )
        )


def _prepare_output(output: Path) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudentError(f"cannot make the output folder {output}: {error}") from error
    if not os.access(output, os.W_OK):
        raise StudentError(f"no permission to write to the output folder {output}; choose another output")
    return output


def _discard(output: Path) -> None:
    for name in (CHECKPOINT, RESULT, SAVINGS, MODEL, LOSSES, BIAS):
        (output / name).unlink(missing_ok=True)
