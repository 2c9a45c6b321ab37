"""The kind `torch`: what a config says of a teacher that is a `torch.nn.Module`.

Torch itself is imported by `load` alone, so that a config is validated and fingerprinted anywhere.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field

from softcask.pipeline.factories import FactoryTarget, call, find_source
from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.teachers.module_kind import COUNTED, Built, ModuleTeacherOptions
from softcask.pipeline.weights import file_digest, load_into, local_size
from softcask.storage_schemas.errors import TeacherError, WeightsError

_COUNTED = COUNTED | {"factory", "kwargs", "preprocessing"}


class TorchTeacherOptions(ModuleTeacherOptions):
    """A teacher built by a factory of the user's.

    Attributes:
        factory: `module:function` that returns a `torch.nn.Module`; called under a fixed seed.
        kwargs: Its keyword arguments.
        weights: `.safetensors`, or a state dict in `.pt`, `.pth`, `.bin`; None: as the factory left them.
        preprocessing: What is done to each row first.
    """

    kind: Literal["torch"] = "torch"
    factory: FactoryTarget
    kwargs: dict[str, Any] = Field(default_factory=dict)
    weights: ResolvedPath | None = None
    preprocessing: PreprocessingOptions = PreprocessingOptions()

    def _build(self) -> Built:
        import torch

        from softcask.pipeline.teachers.preparation import Numbers

        module = call(self.factory, self.kwargs, what=f"teacher {self.name!r}")
        if not isinstance(module, torch.nn.Module):
            found = type(module).__name__
            raise TeacherError(f"expected a torch.nn.Module from factory {self.factory!r}, found a {found}")
        if self.weights is not None:
            load_into(module, self.weights)
        return Built(module=module, preparation=Numbers(self.preprocessing))

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

    def weights_bytes(self) -> int | None:
        """Size of the weights' file; None where there is none on this machine."""
        return local_size(self.weights) if self.weights is not None else None

    def source_digest(self) -> str | None:
        """`sha256:...` of the source file that holds the factory; recorded, but not part of the fingerprint.

        Found without running it. None where there is no source file to read.
        """
        path = find_source(self.factory)
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" if path is not None else None
