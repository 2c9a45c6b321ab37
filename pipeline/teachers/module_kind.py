"""What all kinds share whose teacher is a `torch.nn.Module`, however they come by it.

Torch itself is imported by `load` alone, so that a config is validated anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.outputs import ClassMap, check_class_map, kept_outputs, names_outputs
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

if TYPE_CHECKING:
    import torch

    from softcask.pipeline.teachers.preparation import Preparation
    from softcask.pipeline.teachers.torch_teacher import TorchTeacher

COUNTED = {"kind", "dtype", "channels_last", "compile", "deterministic", "class_map", "code_version"}
"""Options of every such kind that logits depend on."""

Given = Annotated[bool | None, AfterValidator(lambda value: value or None)]
"""False is as if it was not said: fingerprints of stores that stand know nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A module with all that was loaded beside it.

    Attributes:
        module: With its weights, on the host.
        preparation: What makes a batch of rows into what the module is called with.
    """

    module: torch.nn.Module
    preparation: Preparation


class ModuleTeacherOptions(TeacherOptions):
    """Base of kinds whose teacher is a `torch.nn.Module`; they implement `_build`.

    Attributes:
        dtype: `float32`, or autocast to `bfloat16` or `float16`; logits are float32 always.
        channels_last: Whether images lie channel by pixel in memory, which most GPUs convolve faster.
        compile: Whether `torch.compile` makes the module faster; takes a while, and on a CPU a C++ compiler.
        deterministic: Whether torch is held to kernels that give the same bits each time; some are slower,
            and what has none raises. Of no use on a CPU, where kernels are.
        device: `auto` (CUDA where `num_gpus` asks for it, else CPU), or as torch names it.
        class_map: Which of its outputs to keep, in the order of the store's classes: their numbers, their
            names, or "by_name" for the names in the run's `[classes]`; None: all as they come.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: Given = None
    compile: Given = None
    deterministic: Given = None
    device: str = "auto"
    class_map: ClassMap | None = None

    @model_validator(mode="after")
    def _check_class_map(self) -> Self:
        check_class_map(self.class_map)
        return self

    def load(self) -> TorchTeacher:
        """Build the module, load its weights and put it on its device, ready to label.

        Raises:
            TeacherError: There is no such module, or its weights, its classes or the device are not usable.
            FactoryError: A factory cannot be imported or raised.
        """
        import torch

        from softcask.pipeline.teachers.torch_teacher import TorchTeacher, usable_device

        try:
            device = usable_device(self.device, num_gpus=self.num_gpus)
            if device.type == "cpu":
                torch.set_num_threads(self.num_cpus)
            elif self.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS chooses as it goes
            # Parameters that are drawn must be the same ones in every actor.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                built = self._build()
            names = self.output_names() if names_outputs(self.class_map) else None
            kept = kept_outputs(self.class_map, names)
        except (WeightsError, TeacherError, ConfigError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        # A model for several devices stands where its factory has put its parts.
        module = built.module if self.num_gpus > 1 else built.module.to(device)
        return TorchTeacher(
            self.name,
            module,
            device,
            preparation=built.preparation,
            dtype=self.dtype,
            channels_last=bool(self.channels_last),
            compiled=bool(self.compile),
            deterministic=bool(self.deterministic),
            num_threads=self.num_cpus,
            class_map=kept,
        )

    def _build(self) -> Built:
        """Build the module, under a fixed seed.

        Raises:
            TeacherError, WeightsError, ConfigError: What is wrong, without the teacher's name.
        """
        raise NotImplementedError
