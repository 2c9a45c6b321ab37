"""A loaded torch teacher: from a batch of rows to float32 logits, the same bits every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softcask.pipeline.weights import state_digest
from softcask.storage_schemas.errors import ConfigError, TeacherError, TeacherOutOfMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from softcask.pipeline.teachers.preparation import Preparation

Tensors = torch.Tensor | Mapping[str, torch.Tensor]
"""What a module is called with: one tensor, or several by name."""


class TorchTeacher:
    """A module in evaluation mode on its device; see `softcask.pipeline.teachers.base.Teacher`.

    Attributes:
        name: The teacher's name.
        module: Its parameters do not require gradients.
        device: Where it computes.
        deterministic: Whether torch is held to one order of adding while this computes.
        may_differ: See `softcask.pipeline.teachers.base.StagedTeacher`.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        device: torch.device,
        *,
        preparation: Preparation,
        dtype: str = "float32",
        channels_last: bool = False,
        compiled: bool = False,
        deterministic: bool = False,
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
            channels_last: Whether images are laid out channel by pixel.
            compiled: Whether the module is called through `torch.compile`.
            deterministic: Whether torch may take kernels only that give the same bits each time.
            num_threads: Torch threads on a CPU.
            class_map: Which outputs to keep, in order; None: all.
        """
        self.name = name
        self.module = module.eval().requires_grad_(False)
        self.device = device
        self._preparation, self._dtype, self._num_threads = preparation, dtype, num_threads
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._call: Any = torch.compile(self.module) if compiled else self.module
        self.deterministic = deterministic
        self.may_differ = _may_differ(device, compiled=compiled, deterministic=deterministic)
        self._upload = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._most = max(class_map) if class_map is not None else None
        self._kept = None if class_map is None else torch.tensor(class_map, dtype=torch.int64, device=device)

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """Logits `[B, C]` of a batch `[B, *row]`, float32 on the host; `inputs_B` is left untouched.

        Raises:
            TeacherError: The module raised, or its output is not one row of floating logits an input, or has
                fewer columns than the class map names.
        """
        result: NDArray[np.float32] = self.launch(self.stage(inputs_B)).cpu().numpy()
        return result

    def stage(self, inputs_B: NDArray[Any]) -> Staged:
        """See `StagedTeacher.stage`; `inputs_B` must stay as it is until its logits are there."""
        rows = inputs_B.shape, inputs_B.dtype
        try:
            prepared_B = self._preparation.on_host(inputs_B)
        except (ConfigError, TypeError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        if self._upload is None:
            return Staged(_each(prepared_B, lambda tensor: tensor.to(self.device)), len(inputs_B), rows)
        # From pinned memory, on a stream of its own: so it overlaps with what is computed.
        with torch.cuda.stream(self._upload):
            pinned_B = _each(prepared_B, torch.Tensor.pin_memory)
            try:
                sent_B = _each(pinned_B, lambda tensor: tensor.to(self.device, non_blocking=True))
            except torch.cuda.OutOfMemoryError:  # no room to send it ahead: it is sent when it is computed
                sent_B = pinned_B
            return Staged(sent_B, len(inputs_B), rows, self._upload.record_event())

    def launch(self, staged_B: Staged) -> torch.Tensor:
        """See `StagedTeacher.launch`; on a CPU they are computed when this returns."""
        self._use_threads()
        one_order = _held_to_one_order() if self.deterministic else nullcontext()
        try:
            with torch.inference_mode(), self._precision(), one_order:
                return self._logits(staged_B)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            told = str(error).partition("\n")[0]
        # Out of the handler: what the pass had made is free now, and may make room for fewer rows.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise TeacherOutOfMemory(
            f"teacher {self.name!r} ran out of memory on {self.device} with {len(staged_B)} rows: {told}"
        )

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

    def _logits(self, staged_B: Staged) -> torch.Tensor:
        logits_BC = self._checked(_logits_of(self._forward(staged_B), self.name), len(staged_B))
        kept_BC = logits_BC if self._kept is None else logits_BC.index_select(1, self._kept)
        return kept_BC.to(torch.float32).contiguous()

    def _forward(self, staged_B: Staged) -> Any:
        try:
            batch_B = _each(self._preparation.on_device(staged_B.received(self.device)), self._laid_out)
        except (ConfigError, TypeError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        try:
            return self._call(**batch_B) if isinstance(batch_B, Mapping) else self._call(batch_B)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise TeacherError(
                f"teacher {self.name!r} raised {type(error).__name__} on a batch of shape "
                f"{_shapes(batch_B)}, before preprocessing {_told(*staged_B.rows)}: {error}"
            ) from error

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous(memory_format=self._layout) if tensor.dim() == 4 else tensor

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


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch that was sent to a device; see `softcask.pipeline.teachers.base.StagedRows`.

    Attributes:
        tensors: What `Preparation.on_host` gave, on the device.
        count: Rows.
        rows: Shape and type of the rows it was made of, for messages.
        sent: Passed when all of it is there; None where it is.
    """

    tensors: Tensors
    count: int
    rows: tuple[tuple[int, ...], np.dtype[Any]]
    sent: torch.cuda.Event | None = None

    def __len__(self) -> int:
        """Rows."""
        return self.count

    def __getitem__(self, rows: slice) -> Staged:
        """Some of them."""
        count = len(range(*rows.indices(self.count)))
        if count == self.count:
            return self
        return Staged(_each(self.tensors, lambda tensor: tensor[rows]), count, self.rows, self.sent)

    def received(self, device: torch.device) -> Tensors:
        """The tensors, for the current stream of `device`."""
        tensors = _each(self.tensors, lambda tensor: tensor.to(device))
        if self.sent is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.sent)
            for tensor in tensors.values() if isinstance(tensors, Mapping) else (tensors,):
                tensor.record_stream(stream)
        return tensors


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no memory for what torch asked for."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)
    )


def _told(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{list(shape)} {dtype}"


def _each(tensors: Tensors, of: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    if isinstance(tensors, Mapping):
        return {name: of(tensor) for name, tensor in tensors.items()}
    return of(tensors)


def _may_differ(device: torch.device, *, compiled: bool, deterministic: bool) -> tuple[str, ...]:
    why = []
    if device.type != "cpu" and not deterministic:
        why.append(f"kernels of {device.type} may add in any order (deterministic = true holds them to one)")
    if compiled:
        why.append("torch.compile makes other kernels with other versions and on other processors")
    return tuple(why)


@contextmanager
def _held_to_one_order() -> Iterator[None]:
    """Torch keeps this for the process, not for a module."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _shapes(batch_B: Tensors) -> str:
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
