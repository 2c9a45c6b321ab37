"""The kind `torch`: what a config says of a teacher that is a `torch.nn.Module`.

Torch itself is imported by `load` alone, so that a config is validated and fingerprinted anywhere.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from softcask.pipeline.factories import FactoryTarget, call, find_source
from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.weights import file_digest, load_into
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

if TYPE_CHECKING:
    from softcask.pipeline.teachers.torch_teacher import TorchTeacher

_COUNTED = {"kind", "factory", "kwargs", "preprocessing", "dtype", "class_map", "code_version"}


class TorchTeacherOptions(TeacherOptions):
    """A teacher built by a factory of the user's.

    Attributes:
        factory: `module:function` that returns a `torch.nn.Module`; called under a fixed seed.
        kwargs: Its keyword arguments.
        weights: `.safetensors`, or a state dict in `.pt`, `.pth`, `.bin`; None: as the factory left them.
        preprocessing: What is done to each row first.
        dtype: `float32`, or autocast to `bfloat16` or `float16`; logits are float32 always.
        device: `auto` (CUDA where `num_gpus` asks for it, else CPU), or as torch names it.
        class_map: Which of its outputs to keep, in the order of the store's classes; None: all as they come.
    """

    kind: Literal["torch"] = "torch"
    factory: FactoryTarget
    kwargs: dict[str, Any] = Field(default_factory=dict)
    weights: ResolvedPath | None = None
    preprocessing: PreprocessingOptions = PreprocessingOptions()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    class_map: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _check_class_map(self) -> Self:
        if self.class_map is not None and (not self.class_map or min(self.class_map) < 0):
            raise ConfigError(f"class_map must list outputs from 0 on, found {list(self.class_map)}")
        if self.class_map is not None and len(set(self.class_map)) < len(self.class_map):
            raise ConfigError(f"class_map names an output twice: {list(self.class_map)}")
        return self

    def load(self) -> TorchTeacher:
        """Build the module, load its weights and put it on its device, ready to label.

        Raises:
            TeacherError: The factory made no module, or the weights or the device are not usable.
            FactoryError: The factory cannot be imported or raised.
        """
        import torch

        from softcask.pipeline.teachers.torch_teacher import TorchTeacher, usable_device

        what = f"teacher {self.name!r}"
        try:
            device = usable_device(self.device, num_gpus=self.num_gpus)
            if device.type == "cpu":
                torch.set_num_threads(self.num_cpus)
            # A factory that draws its parameters must draw the same ones in every actor.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                module = call(self.factory, self.kwargs, what=what)
            if not isinstance(module, torch.nn.Module):
                found = type(module).__name__
                raise TeacherError(
                    f"expected a torch.nn.Module from factory {self.factory!r}, found a {found}"
                )
            if self.weights is not None:
                load_into(module, self.weights)
        except (WeightsError, TeacherError) as error:
            raise TeacherError(f"{what}: {error}") from error
        return TorchTeacher(
            self.name,
            module.to(device),
            device,
            preprocessing=self.preprocessing,
            dtype=self.dtype,
            num_threads=self.num_cpus,
            class_map=self.class_map,
        )

    def fingerprint_fields(self) -> dict[str, Any]:
        """What pins this teacher's name; the weights are read and hashed, nothing is imported.

        Options that are None are left out, arguments of the factory apart: an option that a later version
        adds must not change the fingerprints of stores that stand.

        Raises:
            TeacherError: The weights cannot be read.
        """
        try:
            weights = {} if self.weights is None else {"weights": file_digest(self.weights)}
        except WeightsError as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        return {**self.model_dump(mode="json", include=_COUNTED, exclude_none=True), **weights}

    def source_digest(self) -> str | None:
        """`sha256:...` of the source file that holds the factory; recorded, but not part of the fingerprint.

        Found without running it. None where there is no source file to read.
        """
        path = find_source(self.factory)
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" if path is not None else None
