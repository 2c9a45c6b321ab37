"""The kind `torchvision`: its image classifiers, with the preprocessing of their weights.

torchvision is imported where its tables are needed: to load, and to find torchvision's own weights.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from softcask.pipeline.parts import MAY_BE_PATH, resolve_path
from softcask.pipeline.teachers.images import ImageOptions, ImagePreparation
from softcask.pipeline.teachers.installed import required
from softcask.pipeline.teachers.module_kind import COUNTED, Built, ModuleTeacherOptions
from softcask.pipeline.teachers.outputs import near, with_short_names
from softcask.pipeline.weights import file_digest, load_into, local_size
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

if TYPE_CHECKING:
    import torch

    from softcask.pipeline.teachers.outputs import OutputNames

_ENTRY = re.compile(r"[A-Z][A-Z0-9_]*")


def _placed(weights: str, info: ValidationInfo) -> str:
    return weights if _ENTRY.fullmatch(weights) else resolve_path(weights, info)


class TorchvisionTeacherOptions(ModuleTeacherOptions):
    """An image classifier of torchvision.

    Attributes:
        model: Its name, such as `resnet50`.
        weights: Those of torchvision by name (`IMAGENET1K_V2`, `DEFAULT`), or a file: `.safetensors`, or a
            state dict in `.pt`, `.pth`, `.bin`.
        preprocessing_of: Of a file: the weights of torchvision whose preprocessing it wants.
        kwargs: Keyword arguments of the model's builder, such as `num_classes`.
        images: What of that preprocessing to do otherwise.
        local_files_only: Whether to look into torch's cache alone.
    """

    kind: Literal["torchvision"] = "torchvision"
    model: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1), AfterValidator(_placed), MAY_BE_PATH]
    preprocessing_of: str = "DEFAULT"
    kwargs: dict[str, Any] = Field(default_factory=dict)
    images: ImageOptions = ImageOptions()
    local_files_only: bool = False

    @model_validator(mode="after")
    def _check_kwargs(self) -> Self:
        if hidden := sorted({"weights", "weights_backbone", "progress"} & self.kwargs.keys()):
            raise ConfigError(f"kwargs: {', '.join(hidden)} would load what no fingerprint sees; take it out")
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """What pins this teacher's name; weights by content.

        torchvision is needed for its own weights alone, and torch's cache, or a network, for what is there.

        Raises:
            TeacherError: The weights cannot be had.
        """
        counted = COUNTED | {"model", "kwargs", "images"} | (set() if self._own else {"preprocessing_of"})
        fields = self.model_dump(mode="json", include=counted, exclude_none=True)
        try:
            path = str(self._cached(self._entry())) if self._own else self.weights
            return {**fields, "weights": file_digest(path)}
        except (TeacherError, WeightsError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error

    def weights_bytes(self) -> int | None:
        """Size of the weights' file; None where it cannot be had."""
        try:
            return local_size(str(self._cached(self._entry())) if self._own else self.weights)
        except TeacherError:
            return None

    def output_names(self) -> OutputNames | None:
        """Categories of the weights, unless kwargs ask for others; of a file those of `preprocessing_of`."""
        categories = self._entry().meta["categories"]
        if self.kwargs.get("num_classes", len(categories)) != len(categories):
            return None
        return with_short_names(categories)

    @property
    def _own(self) -> bool:
        return _ENTRY.fullmatch(self.weights) is not None

    def _entry(self) -> Any:
        """The weights of torchvision that are meant, or whose preprocessing is."""
        models = required("torchvision.models", extra="torchvision")
        here = f"torchvision {version('torchvision')} has no"
        known = models.list_models(module=models)
        if self.model not in known:
            raise TeacherError(f"{here} classifier {self.model!r}{near(self.model, known)}")
        entries = models.get_model_weights(self.model).__members__
        wanted = self.weights if self._own else self.preprocessing_of
        if wanted not in entries:
            raise TeacherError(f"{here} weights {wanted!r} of {self.model}{near(wanted, list(entries))}")
        return entries[wanted]

    def _cached(self, entry: Any) -> Path:
        """Where torch keeps the file of these weights; fetched if it is not there."""
        hub = required("torch.hub", extra="engine")
        name = PurePosixPath(urlsplit(entry.url).path).name
        path = Path(hub.get_dir(), "checkpoints", name)
        if path.is_file():
            return path
        try:
            if self.local_files_only:
                raise FileNotFoundError("local_files_only")
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = hub.HASH_REGEX.search(name)
            hub.download_url_to_file(entry.url, str(path), prefix[1] if prefix else None, progress=False)
        except (OSError, RuntimeError) as error:
            raise TeacherError(
                f"weights {entry} of {self.model} are not in torch's cache {path.parent}, and could not be "
                f"fetched ({type(error).__name__}: {error}). Bring the file {entry.url} there (TORCH_HOME "
                "says where the cache lies), or name it in weights"
            ) from error
        return path

    def _build(self) -> Built:
        models, entry = required("torchvision.models", extra="torchvision"), self._entry()
        if self._own:
            self._cached(entry)
            module = self._created(models, entry)
        else:
            module = self._created(models, None)
            load_into(module, self.weights)
        return Built(module=module, preparation=_preparation(entry.transforms()).changed(self.images))

    def _created(self, models: Any, weights: Any) -> torch.nn.Module:
        try:
            module: torch.nn.Module = models.get_model(self.model, weights=weights, **self.kwargs)
        except Exception as error:  # whatever the kwargs lead to
            given = ", ".join(f"{name}={value!r}" for name, value in self.kwargs.items())
            raise TeacherError(
                f"torchvision's {self.model}({given}) raised {type(error).__name__}: {error}"
            ) from error
        return module


def _preparation(transforms: Any) -> ImagePreparation:
    """From torchvision's `ImageClassification`, which does the same to one image."""
    crop, resize = transforms.crop_size, transforms.resize_size
    return ImagePreparation(
        channels=3,
        size=(crop[0], crop[-1]),
        resize=resize[0] if len(resize) == 1 else tuple(resize),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
