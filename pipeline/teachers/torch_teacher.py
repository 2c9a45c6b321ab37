"""A loaded torch teacher: from a batch of rows to float32 logits, the same bits every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from softcask.pipeline.weights import state_digest
from softcask.storage_schemas.errors import ConfigError, TeacherError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from softcask.pipeline.teachers.preparation import Preparation


class TorchTeacher:
    """A module in evaluation mode on its device; see `softcask.pipeline.teachers.base.Teacher`.

    Attributes:
        name: The teacher's name.
        module: Its parameters do not require gradients.
        device: Where it computes.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        device: torch.device,
        *,
        preparation: Preparation,
        dtype: str = "float32",
        num_threads: int = 1,
        class_map: Sequence[int] | None = None,
    ) -> None:
        """Take a module that stands on `device` already.

        Args:
            name: For messages.
            module: Gives logits for what `preparation` gives; called with keywords where that is a mapping.
            device: Where it stands.
            preparation: What is done to each batch first.
            dtype: `float32`, or what to autocast to.
            num_threads: Torch threads on a CPU.
            class_map: Which outputs to keep, in order; None: all.
        """
        self.name = name
        self.module = module.eval().requires_grad_(False)
        self.device = device
        self._preparation, self._dtype, self._num_threads = preparation, dtype, num_threads
        self._most = max(class_map) if class_map is not None else None
        self._kept = None if class_map is None else torch.tensor(class_map, dtype=torch.int64, device=device)

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """Logits `[B, C]` of a batch `[B, *row]`, float32 on the host; `inputs_B` is left untouched.

        Raises:
            TeacherError: The module raised, or its output is not one row of floating logits an input, or has
                fewer columns than the class map names.
        """
        self._use_threads()
        with torch.inference_mode(), self._precision():
            output = self._forward(inputs_B)
        logits_BC = self._checked(_logits_of(output, self.name), len(inputs_B))
        kept_BC = logits_BC if self._kept is None else logits_BC.index_select(1, self._kept)
        result: NDArray[np.float32] = kept_BC.detach().to("cpu", torch.float32).contiguous().numpy()
        return result

    def state_digest(self) -> str:
        """`sha256:...` of the loaded parameters and buffers."""
        return state_digest(self.module)

    def output_layer(self) -> NDArray[np.float32] | None:
        """Weights `[C, d]` of the output embeddings, as transformers call them, or of the last linear."""
        embeddings = getattr(self.module, "get_output_embeddings", None)
        layer = embeddings() if callable(embeddings) else None
        linear = [module for module in self.module.modules() if isinstance(module, torch.nn.Linear)]
        if not isinstance(layer, torch.nn.Linear):
            layer = linear[-1] if linear else None
        if layer is None or (self._most is not None and self._most >= layer.out_features):
            return None
        weight_Cd = layer.weight.detach()
        kept_Cd = weight_Cd if self._kept is None else weight_Cd.index_select(0, self._kept)
        result: NDArray[np.float32] = kept_Cd.to("cpu", torch.float32).numpy()
        return result if result.shape[1] < result.shape[0] else None

    def _use_threads(self) -> None:
        # Torch keeps the number for each thread: the one that labels need not be the one that loaded.
        if self.device.type == "cpu" and torch.get_num_threads() != self._num_threads:
            torch.set_num_threads(self._num_threads)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self._dtype))

    def _forward(self, inputs_B: NDArray[Any]) -> Any:
        try:
            staged_B = self._preparation.on_host(inputs_B)
            batch_B = self._preparation.on_device(_moved(staged_B, self.device))
        except (ConfigError, TypeError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        try:
            return self.module(**batch_B) if isinstance(batch_B, Mapping) else self.module(batch_B)
        except (Exception, SystemExit) as error:
            raise TeacherError(
                f"teacher {self.name!r} raised {type(error).__name__} on a batch of shape "
                f"{_shapes(batch_B)}, before preprocessing {list(inputs_B.shape)} {inputs_B.dtype}: {error}"
            ) from error

    def _checked(self, logits_BC: torch.Tensor, num_rows: int) -> torch.Tensor:
        shape = list(logits_BC.shape)
        if len(shape) != 2 or shape[0] != num_rows or not logits_BC.is_floating_point():
            raise TeacherError(
                f"teacher {self.name!r}: expected floating logits of shape [{num_rows}, classes], "
                f"found {str(logits_BC.dtype).removeprefix('torch.')} of shape {shape}"
            )
        if self._most is not None and self._most >= shape[1]:
            raise TeacherError(
                f"teacher {self.name!r}: class_map names output {self._most}, "
                f"but it has outputs 0 to {shape[1] - 1}"
            )
        return logits_BC


def _moved(
    staged_B: torch.Tensor | Mapping[str, torch.Tensor], device: torch.device
) -> torch.Tensor | Mapping[str, torch.Tensor]:
    if isinstance(staged_B, Mapping):
        return {name: tensor.to(device) for name, tensor in staged_B.items()}
    return staged_B.to(device)


def _shapes(batch_B: torch.Tensor | Mapping[str, torch.Tensor]) -> str:
    if isinstance(batch_B, Mapping):
        return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in batch_B.items())
    return str(list(batch_B.shape))


def usable_device(name: str, *, num_gpus: float) -> torch.device:
    """The device that a config names.

    Args:
        name: `auto` (CUDA where a GPU was asked for, else CPU), or as torch names it.
        num_gpus: GPUs that were asked for.

    Raises:
        TeacherError: It cannot be used here.
    """
    if name == "auto":
        if num_gpus > 0 and not torch.cuda.is_available():
            raise TeacherError(
                f"num_gpus = {num_gpus:g} asks for a GPU, and torch {torch.__version__} finds no CUDA device "
                "here. Install a torch with CUDA and its driver, or say device = 'cpu' to compute without"
            )
        return torch.device("cuda" if num_gpus > 0 else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # `meta` makes tensors, too, but without values
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        raise TeacherError(f"device {name!r} cannot be used here: {first_line}") from error
    return device


def _logits_of(output: Any, teacher: str) -> torch.Tensor:
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list) and not hasattr(output, "logits"):
        found = output[0] if output else None
    elif not isinstance(output, torch.Tensor):
        found = getattr(output, "logits", None)
    if isinstance(found, torch.Tensor):
        return found
    keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TeacherError(
        f"teacher {teacher!r} returned a {type(output).__name__}{keys}; expected a tensor of logits, a "
        "mapping or an object that has 'logits', or a tuple that begins with them"
    )
