"""The kind `transformers`: classifiers of images and of text as the Hugging Face Hub keeps them.

A folder, or a name on the Hub: weights in safetensors, with the tokenizer or the image processor beside them.
No code that lies there is run. transformers is imported by `load` alone; what a fingerprint needs is in the
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from softcask.pipeline.teachers.hub import ModelPlace, file_digests, model_folder, read_json
from softcask.pipeline.teachers.images import Layout
from softcask.pipeline.teachers.installed import required
from softcask.pipeline.teachers.module_kind import COUNTED, Built, ModuleTeacherOptions
from softcask.pipeline.teachers.outputs import with_short_names
from softcask.pipeline.teachers.transformers_rows import ProcessedImages, TokenRows
from softcask.pipeline.weights import local_size
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

if TYPE_CHECKING:
    from softcask.pipeline.teachers.outputs import OutputNames

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = "model-*-of-*.safetensors"
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
_TEXT_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "*.model",
)
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_LONGEST = 1_000_000
"""Tokenizers that know no limit say 10^30."""


class TransformersTeacherOptions(ModuleTeacherOptions):
    """A classifier of transformers.

    Attributes:
        model: A folder, or a name on the Hub.
        task: What it classifies: images, or sequences (texts, pairs of them, or numbers of tokens).
        revision: On the Hub; a commit, a branch or a tag.
        local_files_only: Whether to look into the Hub's cache alone; what is there is taken in any case.
        image_processor: Which of the two ways that transformers has: `torchvision` computes on the device,
            `pil` on the host; they differ by rounding.
        layout: Of rows that are images.
        max_length: Tokens at most; None: as many as tokenizer and model take.
        padding: Of texts: to the longest row of a batch, or always to `max_length`.
    """

    kind: Literal["transformers"] = "transformers"
    model: ModelPlace
    task: Literal["image-classification", "sequence-classification"]
    revision: str | None = None
    local_files_only: bool = False
    image_processor: Literal["torchvision", "pil"] = "torchvision"
    layout: Layout = "auto"
    max_length: int | None = Field(default=None, ge=1)
    padding: Literal["longest", "max_length"] = "longest"

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        others = {name: type(self).model_fields[name].default for name in _OPTIONS[not self._of_images]}
        if stray := sorted(name for name, default in others.items() if getattr(self, name) != default):
            raise ConfigError(f"{', '.join(stray)} does not concern the task {self.task!r}; take it out")
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """What pins this teacher's name: all of the model's files that count, by content.

        The files must be here, or be had from the Hub; neither torch nor transformers is needed.

        Raises:
            TeacherError: They cannot be had.
        """
        counted = COUNTED | {"task"} | _OPTIONS[self._of_images]
        fields = self.model_dump(mode="json", include=counted, exclude_none=True)
        try:
            folder = self._folder()
            names = {path.name for pattern in self._files() for path in folder.glob(pattern)}
            unused = {_INDEX, *(path.name for path in folder.glob(_SHARDS))} if _WEIGHTS in names else set()
            return {**fields, "files": file_digests(folder, names - unused)}
        except (TeacherError, WeightsError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error

    def weights_bytes(self) -> int | None:
        """Size of the weights' files; None where they cannot be had."""
        try:
            folder = self._folder()
        except TeacherError:
            return None
        whole = folder / _WEIGHTS
        return local_size(*map(str, [whole] if whole.is_file() else folder.glob(_SHARDS)))

    def output_names(self) -> OutputNames | None:
        """`id2label` of the model's configuration, unless it says no more than "LABEL_0"."""
        labels = read_json(self._folder() / "config.json").get("id2label")
        if not isinstance(labels, Mapping) or not labels:
            return None
        names = [str(labels[key]) for key in sorted(labels, key=int)]
        return None if names[0] == "LABEL_0" else with_short_names(names)

    @property
    def _of_images(self) -> bool:
        return self.task == "image-classification"

    def _files(self) -> Sequence[str]:
        return ("config.json", _WEIGHTS, _INDEX, _SHARDS, *(_IMAGE_FILES if self._of_images else _TEXT_FILES))

    def _folder(self) -> Path:
        return model_folder(
            self.model,
            files=self._files(),
            missing=partial(_missing, beside=_IMAGE_FILES if self._of_images else _VOCABULARIES),
            revision=self.revision,
            offline=self.local_files_only,
        )

    def _build(self) -> Built:
        folder = self._folder()
        # transformers imports it wherever it is installed, and does not say what of it failed.
        if find_spec("torchvision") or (self._of_images and self.image_processor == "torchvision"):
            required("torchvision", extra="torchvision")
        transformers = required("transformers", extra="hf")
        try:
            with _without_progress_bars(transformers):
                return self._built(transformers, folder)
        except (ImportError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            if isinstance(error, ConfigError | TeacherError):
                raise
            first_line = str(error).strip().partition("\n")[0]
            raise TeacherError(
                f"model {self.model}: transformers {transformers.__version__} cannot load it for "
                f"{self.task}: {type(error).__name__}: {first_line}"
            ) from error

    def _built(self, transformers: Any, folder: Path) -> Built:
        of_images = self._of_images
        kind = "AutoModelForImageClassification" if of_images else "AutoModelForSequenceClassification"
        module = self._loaded(getattr(transformers, kind), folder)
        if of_images:
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend=self.image_processor, trust_remote_code=False, local_files_only=True
            )
            channels = getattr(module.config, "num_channels", 3)
            return Built(
                module=module,
                preparation=ProcessedImages(processor=processor, channels=channels, layout=self.layout),
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        _agree_on_padding(tokenizer, module.config)
        longest = self._max_length(tokenizer, module.config)
        rows = TokenRows(tokenizer=tokenizer, max_length=longest, padding=self.padding)
        return Built(module=module, preparation=rows)

    def _loaded(self, auto: Any, folder: Path) -> Any:
        import torch

        module, report = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        if drawn := sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"])):
            raise TeacherError(
                f"model {self.model}: its weights lack {', '.join(drawn[:4])}, which would be random: it was "
                f"not trained for {self.task}"
            )
        return module

    def _max_length(self, tokenizer: Any, config: Any) -> int:
        limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
        known = [int(limit) for limit in limits if limit and limit < _LONGEST]
        if self.max_length is None and not known:
            raise TeacherError("neither tokenizer nor model say how many tokens they take; say max_length")
        longest = min(known, default=_LONGEST)
        if self.max_length is not None and self.max_length > longest:
            raise TeacherError(f"max_length is {self.max_length}, tokenizer and model take {longest} tokens")
        return self.max_length or longest


_OPTIONS = {True: {"image_processor", "layout"}, False: {"max_length", "padding"}}
"""By whether it classifies images: options that concern it."""


@contextmanager
def _without_progress_bars(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _missing(folder: Path, beside: Sequence[str]) -> list[str]:
    """What a folder lacks; one of the patterns `beside` must be there, too.

    Without them transformers makes a tokenizer that knows no word, and says nothing.
    """
    if not (folder / "config.json").is_file():
        return ["config.json"]
    found = any(path.is_file() for pattern in beside for path in folder.glob(pattern))
    return [*_missing_weights(folder), *([] if found else [" or ".join(beside)])]


def _missing_weights(folder: Path) -> list[str]:
    if (folder / _WEIGHTS).is_file():
        return []
    if not (folder / _INDEX).is_file():
        return [_WEIGHTS]
    shards = read_json(folder / _INDEX).get("weight_map")
    names = {str(name) for name in shards.values()} if isinstance(shards, Mapping) else {_WEIGHTS}
    return sorted(name for name in names if Path(name).name != name or not (folder / name).is_file())


def _agree_on_padding(tokenizer: Any, config: Any) -> None:
    """Models that judge by a text's last token must know which tokens are padding."""
    if tokenizer.pad_token is None and config.pad_token_id is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    if tokenizer.pad_token is None:
        raise TeacherError(
            "neither tokenizer nor model have a token for padding: state `pad_token` in the folder's "
            "tokenizer_config.json and `pad_token_id` in its config.json"
        )
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
