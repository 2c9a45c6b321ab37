"""The sections of a student's file that only a student has: its model, its optimiser, its training."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from softcask.pipeline.factories import FactoryTarget
from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]


class ModelOptions(Options):
    """`[model]`: what is trained.

    Attributes:
        factory: `module:function` that returns a `torch.nn.Module` giving logits `[B, C]`.
        kwargs: Its keyword arguments.
    """

    factory: FactoryTarget
    kwargs: dict[str, Any] = Field(default_factory=dict)


class OptimiserOptions(Options):
    """`[optimiser]`: how parameters move.

    Attributes:
        kind: adam, adamw or sgd, as torch has them.
        lr: Learning rate; the peak of a schedule.
        weight_decay: As torch applies it: to the gradient (adam, sgd) or apart from it (adamw).
        momentum: Of sgd.
        schedule: `constant`; `cosine` from `lr` to 0 over the whole training; `one_cycle`, up from `lr / 25`
            and down to nearly 0, both by cosine (arXiv 1708.07120).
        warmup: Share of all steps that `one_cycle` rises; None: 0.3.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    warmup: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        if self.momentum and self.kind != "sgd":
            raise ConfigError(f"momentum is sgd's; {self.kind} has its own: leave it out")
        if self.warmup is not None and self.schedule != "one_cycle":
            raise ConfigError(f"warmup is one_cycle's; the schedule is {self.schedule}: leave it out")
        return self


class TrainingOptions(Options):
    """`[training]`: how long, how much at once, on what.

    Attributes:
        epochs: Passes over the rows.
        batch_size: Rows a step.
        seed: Decides the initial parameters, the order of rows and dropout.
        dtype: `float32`, `bfloat16` (autocast), or `auto`: whichever is faster here for this model.
        device: `auto` (CUDA where there is one), or as torch names it.
        num_threads: Torch's CPU threads; None leaves them as they are.
        num_workers: Processes that read inputs and targets ahead; 0: a thread.
        evaluate_every_epoch: Count errors after each epoch, not only after the last.
        checkpoint_every_seconds: Keep a checkpoint within an epoch after so long, too; None: only at its end.
        checkpoint_every_steps: The same, after so many steps; None: by time alone.
    """

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    device: str = "auto"
    num_threads: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=0, ge=0)
    evaluate_every_epoch: bool = False
    checkpoint_every_seconds: float | None = Field(default=300.0, gt=0, allow_inf_nan=False)
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
