"""What a teacher is: something with a name that turns a batch of inputs into logits.

How it is built and what it computes with is its kind's affair; what it must be pinned by
(`fingerprint_fields`) and what it promises (`Teacher.logits`) is said here once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from softcask.pipeline.teachers.outputs import OutputNames

Role = Literal["member", "generalist", "specialist"]

AUTO_ON_HOST, AUTO_ON_DEVICE = 256, 1024
"""Rows that "auto" begins with. A process that takes all memory of a host is ended, not told: few there."""


def _told_once(found: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(found)
    except ValidationError:
        raise ConfigError(
            f'batch_size must be a number of rows from 1 on, or "auto"; found {found!r}'
        ) from None


BatchSize = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], WrapValidator(_told_once)]
"""Rows a forward pass."""


class Teacher(Protocol):
    """A loaded model, ready to label. Used by one thread at a time."""

    name: str

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """Logits `[B, C]`, float32 on the host, of a batch in the transfer set's own dtype and shape.

        C and its order are the teacher's own outputs after its class map, if it has one.
        """

    def state_digest(self) -> str:
        """SHA-256 of the loaded parameters and buffers by name, dtype, shape and content."""


class StagedRows(Protocol):
    """A batch on its way to a teacher's device: what `StagedTeacher.stage` gives."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, rows: slice) -> StagedRows:
        """Some of them."""


@runtime_checkable
class StagedTeacher(Protocol):
    """A teacher whose batches are made ready by one thread while another computes, on a device of torch's.

    Its `logits` are those of `launch(stage(inputs_B))`.

    Attributes:
        device: Where it computes.
        may_differ: Why its logits may have other bits when they are computed again; empty where they are the
            same for equal inputs on one kind of device.
    """

    device: torch.device
    may_differ: tuple[str, ...]

    def stage(self, inputs_B: NDArray[Any]) -> StagedRows:
        """Do what the host has to do with a batch, and send it to the device; nothing is waited for.

        Raises:
            TeacherError: Rows that this teacher does not take.
        """

    def launch(self, staged_B: Any) -> torch.Tensor:
        """Logits `[B, C]` of what `stage` gave, float32 on the device; perhaps not computed yet.

        Raises:
            TeacherOutOfMemory: The batch does not fit; a smaller one may.
            TeacherError: As `Teacher.logits`.
        """


@runtime_checkable
class HasOutputLayer(Protocol):
    """A teacher whose logits are, but for a bias, a linear layer's; a codec finds its directions by that."""

    def output_layer(self) -> NDArray[np.float32] | None:
        """Weights `[C, d]` of that layer in the order of the logits, d < C; None where none is found.

        A guess that whoever uses it checks: a module does not say in which order its layers are called.
        """


def _indices(given: Any) -> Any:
    """Every class that numbers and spans name, rising; what is neither is left for the field's own check."""
    if not isinstance(given, list | tuple):
        return given
    found: list[Any] = []
    for each in given:
        span = re.fullmatch(r"([0-9]{1,7})-([0-9]{1,7})", each) if isinstance(each, str) else None
        found += range(int(span[1]), int(span[2]) + 1) if span else [each]
    return sorted(set(found)) if all(type(each) is int for each in found) else found


AbsentClasses = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0, lt=1 << 20)], ...], BeforeValidator(_indices)
]


class TeacherOptions(Options):
    """Base of a teacher's section `[[teachers]]`.

    Attributes:
        name: Its name in the store, pinned to one fingerprint.
        role: `member` of an ensemble, `generalist`, or `specialist`.
        code_version: Stated by the user; change it when the code behind a factory changes its numbers.
        absent_classes: Classes whose logit is -inf in every row, as of a padded output layer, in the order of
            the store's classes: numbers, and spans such as "50257-50303". They are not stored, and their
            probability is 0.
        batch_size: Rows a forward pass; fixed in the plan because it changes the last bits of the logits. Or
            "auto": as many as fit the device, found by trial; then two machines may not give equal bits.
        num_cpus: CPU cores (and torch threads) an actor of this teacher gets.
        num_gpus: GPUs, all on one node, or a fraction of one. Whole beyond one.
        memory_gb: Memory it takes with a batch, GB: of its GPUs, or of the host where it has none. None: on
            GPUs, guessed from the size of its weights.
        group: Teachers of one group live in one actor and share each batch that is read; None: by equal
            needs, as many as fit `executor.gpu_memory_gb`.
    """

    kind: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    role: Role = "member"
    code_version: str = ""
    absent_classes: AbsentClasses = ()
    batch_size: BatchSize = 256
    num_cpus: int = Field(default=1, ge=1)
    num_gpus: float = Field(default=0, ge=0)
    memory_gb: float | None = Field(default=None, gt=0)
    group: str | None = None

    @field_validator("num_gpus")
    @classmethod
    def _check_num_gpus(cls, found: float) -> float:
        if found > 1 and found != int(found):
            raise ConfigError(f"num_gpus must be whole beyond 1, or a fraction of one GPU; found {found:g}")
        return found

    def weights_bytes(self) -> int | None:
        """Size of its weights' files; None where there are none here."""
        return None

    @property
    def planned_batch_size(self) -> int:
        """Rows a forward pass as far as units are planned by it: they are to be whole batches."""
        return AUTO_ON_HOST if self.batch_size == "auto" else self.batch_size

    def load(self) -> Teacher:
        """Build the model where it will run.

        Raises:
            TeacherError: Weights missing or not fitting; the message names the teacher.
            FactoryError: The factory cannot be imported or raised.
        """
        raise NotImplementedError

    def fingerprint_fields(self) -> dict[str, Any]:
        """JSON-able facts that pin this teacher's name.

        Weights by content, factory, arguments, preprocessing, dtype and the like, found without building the
        model. Paths, devices and resources are not among them.
        """
        raise NotImplementedError

    def output_names(self) -> OutputNames | None:
        """What the model calls its outputs, found without building it; None where it does not name them.

        Raises:
            TeacherError: The files that tell cannot be read.
        """
        return None

    def recorded(self) -> dict[str, Any]:
        """JSON-able facts worth keeping beside the fingerprint, which they are no part of."""
        return {}

    def source_digest(self) -> str | None:
        """`sha256:...` of the code behind this teacher, None if not known; no part of the fingerprint."""
        return None
