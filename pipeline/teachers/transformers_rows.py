"""Rows as a Hugging Face model takes them: through its own tokenizer, or its own image processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.teachers.images import Layout, channel_axis, channels_first
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """Rows of text, pairs of texts, or numbers of tokens; see `softcask.pipeline.teachers.preparation`.

    Attributes:
        tokenizer: The model's own, with a token for padding.
        max_length: Tokens at most; what is longer is cut.
        padding: To the longest row of a batch, or always to `max_length`. Either way the model is told which
            tokens are padding, so that a row's logits depend on its neighbours by rounding at most.
    """

    tokenizer: Any
    max_length: int
    padding: Literal["longest", "max_length"]

    def on_host(self, inputs_B: NDArray[Any]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and what else the model takes, int64 `[B, tokens]`."""
        if np.issubdtype(inputs_B.dtype, np.integer) and inputs_B.ndim == 2:
            return self._of_tokens(to_tensor(inputs_B))
        row = inputs_B.shape[1:]
        if inputs_B.dtype.kind != "T" or row not in ((), (2,)):
            raise ConfigError(
                f"rows of shape {list(row)} {inputs_B.dtype} are no text; expected one text a row, two of "
                "them, or integer numbers of tokens [tokens]"
            )
        texts = (inputs_B,) if row == () else (inputs_B[:, 0], inputs_B[:, 1])
        encoded = self.tokenizer(
            *(each.tolist() for each in texts),
            padding=self.padding,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in encoded if name in self.tokenizer.model_input_names}

    def on_device(self, staged_B: Any) -> Mapping[str, torch.Tensor]:
        """The same; no model writes into its tokens."""
        return dict(staged_B)

    def _of_tokens(self, tokens_BL: torch.Tensor) -> dict[str, torch.Tensor]:
        import torch

        if tokens_BL.shape[1] > self.max_length:
            raise ConfigError(f"rows have {tokens_BL.shape[1]} tokens, the model takes {self.max_length}")
        tokens_BL = tokens_BL.to(torch.int64, copy=True)
        if outside := int(((tokens_BL < 0) | (tokens_BL >= len(self.tokenizer))).sum()):
            raise ConfigError(f"{outside} numbers are none of the tokenizer's {len(self.tokenizer)} tokens")
        mask_BL = (tokens_BL != self.tokenizer.pad_token_id).to(torch.int64)
        return {"input_ids": tokens_BL, "attention_mask": mask_BL}


@dataclass(slots=True, kw_only=True)
class ProcessedImages:
    """Images through the model's own image processor; see `softcask.pipeline.teachers.preparation`.

    Rows that have the size that the processor gives are neither resized nor cropped.

    Attributes:
        processor: Of the backend `torchvision`, which computes on the device, or `pil`, on the host.
        channels: That the model takes; grey rows are repeated for three.
        layout: Of rows.
    """

    processor: Any
    channels: int
    layout: Layout = "auto"
    _fits: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def on_host(self, inputs_B: NDArray[Any]) -> torch.Tensor | dict[str, torch.Tensor]:
        """Images `[B, channels, height, width]`, or where PIL computes, what the model takes."""
        batch_B = to_tensor(inputs_B)
        if inputs_B.dtype.name != "uint8":
            raise ConfigError(f"rows are {inputs_B.dtype}, expected images of bytes (uint8)")
        channel_axis(inputs_B.shape[1:], self.channels, self.layout)
        images_BCHW = channels_first(batch_B, self.channels, self.layout)
        return self._processed(list(images_BCHW.numpy())) if self._by_pil else images_BCHW

    def on_device(self, staged_B: Any) -> Mapping[str, torch.Tensor]:
        """`pixel_values` `[B, channels, size, size]` and what else the model takes."""
        return staged_B if self._by_pil else self._processed(list(staged_B))

    @property
    def _by_pil(self) -> bool:
        return bool(self.processor.backend == "pil")

    def _processed(self, images_B: list[Any]) -> dict[str, torch.Tensor]:
        shape = tuple(images_B[0].shape)
        if shape not in self._fits:
            sample = self._called(images_B[:1])["pixel_values"]
            self._fits[shape] = tuple(sample.shape[-2:]) == shape[-2:]
        as_they_are = {"do_resize": False, "do_center_crop": False} if self._fits[shape] else {}
        return self._called(images_B, **as_they_are)

    def _called(self, images_B: list[Any], **more: bool) -> dict[str, torch.Tensor]:
        try:
            made = self.processor(images_B, input_data_format="channels_first", return_tensors="pt", **more)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"the model's {type(self.processor).__name__} raised {type(error).__name__} on images of "
                f"shape {list(images_B[0].shape)}: {error}"
            ) from error
        return {name: made[name] for name in self.processor.model_input_names if name in made}
