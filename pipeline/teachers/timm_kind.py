"""The kind `timm`: image classifiers of PyTorch Image Models, with the preprocessing they were evaluated by.

Weights are timm's own, fetched from the Hub, or a file of the user's; or model and weights are a folder as
`timm.models.save_for_hf` writes it, here or on the Hub. timm is imported where its tables are needed: to load
a model, and to find timm's own weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from softcask.pipeline.parts import MAY_BE_PATH, ResolvedPath
from softcask.pipeline.teachers.hub import file_digests, lacking, model_folder, read_json
from softcask.pipeline.teachers.images import ImageOptions, ImagePreparation
from softcask.pipeline.teachers.installed import required
from softcask.pipeline.teachers.module_kind import COUNTED, Built, ModuleTeacherOptions
from softcask.pipeline.teachers.outputs import near, with_short_names
from softcask.pipeline.weights import file_digest, load_into, local_size
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

if TYPE_CHECKING:
    import torch

    from softcask.pipeline.teachers.outputs import OutputNames

_FOLDER = ("config.json", "model.safetensors")
_HUB = "hf-hub:"
_IMAGENET_TAG = re.compile(r"(^|_)in(1|12|21|22)k$")
_LOADING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def _placed(model: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if base is None or model.startswith(_HUB):
        return model
    path = Path(base, Path(model).expanduser()).absolute()
    return str(path) if model[:1] in "./~" or (path / "config.json").is_file() else model


class TimmTeacherOptions(ModuleTeacherOptions):
    """An image classifier of timm.

    Attributes:
        model: A name of timm's (`resnet50.a1_in1k`), a folder (`./saved`, or `saved` where `config.json` lies
            in it), or `hf-hub:org/name`.
        pretrained: Whether to take timm's own weights for that name.
        weights: Of a name of timm's: `.safetensors`, or a state dict in `.pt`, `.pth`, `.bin`.
        kwargs: Keyword arguments of `timm.create_model`, such as `num_classes`.
        images: What of the model's own preprocessing to do otherwise.
        revision: Of a model on the Hub.
        local_files_only: Whether to look into the Hub's cache alone.
    """

    kind: Literal["timm"] = "timm"
    model: Annotated[str, Field(min_length=1), AfterValidator(_placed), MAY_BE_PATH]
    pretrained: bool = False
    weights: ResolvedPath | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    images: ImageOptions = ImageOptions()
    revision: str | None = None
    local_files_only: bool = False

    @model_validator(mode="after")
    def _check_kwargs(self) -> Self:
        if hidden := sorted(_LOADING & self.kwargs.keys()):
            raise ConfigError(f"kwargs: {', '.join(hidden)} would load what no fingerprint sees; take it out")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self._in_folder:
            if self.weights is not None:
                raise ConfigError(f"{self.model} holds its weights; found others in weights")
        elif self.pretrained == (self.weights is not None):
            found = "both" if self.pretrained else "neither"
            raise ConfigError(
                f"found {found} of pretrained = true and weights; expected one: timm's own weights, or a file"
            )
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """What pins this teacher's name; weights and configuration by content.

        timm is needed for its own weights alone, and the Hub's cache, or a network, for what is there.

        Raises:
            TeacherError: The weights cannot be had.
        """
        counted = COUNTED | {"kwargs", "images"} | (set() if self._in_folder else {"model"})
        fields = self.model_dump(mode="json", include=counted, exclude_none=True)
        try:
            if self._in_folder:
                return {**fields, "files": file_digests(self._folder(), _FOLDER)}
            return {**fields, "weights": file_digest(self.weights or str(self._own_weights()))}
        except (TeacherError, WeightsError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error

    def weights_bytes(self) -> int | None:
        """Size of the weights' file; None where it cannot be had."""
        try:
            folder = self._folder() if self._in_folder else None
            path = folder / "model.safetensors" if folder else self.weights or self._own_weights()
        except TeacherError:
            return None
        return local_size(str(path))

    def output_names(self) -> OutputNames | None:
        """Those in its configuration; ImageNet's where its tag says so and no other classes are asked for."""
        config = self._configuration()
        if self.kwargs.get("num_classes", config.get("num_classes")) != config.get("num_classes"):
            return None
        if names := config.get("label_names") or config.get("labels"):
            ordered = [names[key] for key in sorted(names, key=int)] if isinstance(names, Mapping) else names
            described = config.get("label_descriptions") or {}
            return [(name, *([described[name]] if name in described else [])) for name in ordered]
        return _imagenet(config) if _IMAGENET_TAG.search(config.get("tag") or "") else None

    @property
    def _in_folder(self) -> bool:
        return self.model.startswith((_HUB, "/", ".", "~"))

    def _folder(self) -> Path:
        return model_folder(
            self.model.removeprefix(_HUB),
            files=_FOLDER,
            missing=lacking(*_FOLDER),
            revision=self.revision,
            offline=self.local_files_only,
        )

    def _configuration(self) -> dict[str, Any]:
        """What timm calls `pretrained_cfg`; in a folder, `config.json` has it, and some of it beside it."""
        if self._in_folder:
            raw = read_json(self._folder() / "config.json")
            return {**raw.get("pretrained_cfg", {}), **raw}
        return dict(_known(required("timm", extra="timm"), self.model).to_dict())

    def _own_weights(self) -> Path:
        config = self._configuration()
        name = config.get("hf_hub_filename") or "model.safetensors"
        if not config.get("hf_hub_id") or not name.endswith(".safetensors"):
            raise TeacherError(
                f"timm has no weights in safetensors for {self.model}; download what it has, and name "
                "the file in weights"
            )
        folder = model_folder(
            config["hf_hub_id"],
            files=(name,),
            missing=lacking(name),
            revision=self.revision,
            offline=self.local_files_only,
        )
        return folder / name

    def _build(self) -> Built:
        timm, config = required("timm", extra="timm"), self._configuration()
        if self._in_folder:
            folder = self._folder()
            module = self._created(timm, f"local-dir:{folder}")
            load_into(module, str(folder / "model.safetensors"))
        elif self.weights is not None:
            module = self._created(timm, self.model)
            load_into(module, self.weights)
        else:
            if self.kwargs.get("num_classes", config["num_classes"]) != config["num_classes"]:
                raise TeacherError(
                    f"timm's weights of {self.model} have {config['num_classes']} classes, kwargs ask for "
                    f"{self.kwargs['num_classes']}, and that layer would be random. Take num_classes out, "
                    "and pick classes by class_map"
                )
            overlay = {"file": str(self._own_weights()), "custom_load": False}
            module = self._created(timm, self.model, pretrained=True, pretrained_cfg_overlay=overlay)
        return Built(module=module, preparation=self._preparation(timm, module))

    def _created(self, timm: Any, model: str, **more: Any) -> torch.nn.Module:
        try:
            module: torch.nn.Module = timm.create_model(model, **self.kwargs, **more)
        except Exception as error:  # whatever the kwargs lead to
            given = ", ".join(f"{name}={value!r}" for name, value in self.kwargs.items())
            raise TeacherError(
                f"timm.create_model({self.model!r}, {given}) raised {type(error).__name__}: {error}"
            ) from error
        return module

    def _preparation(self, timm: Any, module: torch.nn.Module) -> ImagePreparation:
        data = timm.data.resolve_model_data_config(module)
        channels, *size = data["input_size"]
        asked = self.kwargs.get("img_size", size)
        size = [asked, asked] if isinstance(asked, int) else asked
        own = ImagePreparation(
            channels=self.kwargs.get("in_chans", channels),
            size=(size[0], size[1]),
            resize=_resize(data, size),
            interpolation=data["interpolation"] if data["interpolation"] in _INTERPOLATIONS else None,
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )
        return own.changed(self.images)


def _known(timm: Any, model: str) -> Any:
    """The configuration of one of timm's models."""
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise TeacherError(
            f"timm {timm.__version__} has no model {architecture!r}{near(architecture, timm.list_models())}"
        )
    try:
        return timm.models.get_pretrained_cfg(model)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{architecture}.*")
        raise TeacherError(
            f"timm {timm.__version__} has no tag {tag!r} of {architecture}{near(model, tags)}"
        ) from error


def _resize(data: Mapping[str, Any], size: Sequence[int]) -> int | tuple[int, int] | None:
    """As timm's own `transforms_imagenet_eval` does; None for what is not done here."""
    edges = [int(edge / data["crop_pct"]) for edge in size]
    if data["crop_mode"] == "squash":
        return edges[0], edges[1]
    return edges[0] if data["crop_mode"] == "center" and edges[0] == edges[1] else None


def _imagenet(config: Mapping[str, Any]) -> OutputNames | None:
    data = required("timm.data", extra="timm")
    if (subset := data.infer_imagenet_subset(dict(config))) is None:
        return None
    info = data.ImageNetInfo(subset)
    described = with_short_names(info.label_descriptions())
    return [(*names, synset) for names, synset in zip(described, info.label_names(), strict=True)]
