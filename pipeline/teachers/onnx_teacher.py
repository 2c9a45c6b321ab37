"""A loaded ONNX model: from a batch of rows to float32 logits, the same bits every time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softcask.pipeline.preprocessing import PreprocessingOptions, to_tensor
from softcask.pipeline.teachers.installed import required
from softcask.storage_schemas.errors import ConfigError, TeacherError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OnnxTeacher:
    """A session of onnxruntime; see `softcask.pipeline.teachers.base.Teacher`.

    Attributes:
        name: The teacher's name.
        device: Where it computes: `cpu`, or `cuda:N`.
        num_threads: Threads on a CPU.
        output: Name of the output that is taken for logits.
    """

    def __init__(
        self,
        name: str,
        session: Any,
        *,
        device: str,
        num_threads: int,
        output: str | None,
        preprocessing: PreprocessingOptions,
        class_map: Sequence[int] | None,
        state: Mapping[str, Any],
    ) -> None:
        """Take a session.

        Args:
            name: For messages.
            session: `onnxruntime.InferenceSession`.
            device: Where it computes.
            num_threads: Threads that the session has on a CPU.
            output: Name of the one that is logits; None: its only one.
            preprocessing: What is done to each batch first.
            class_map: Which outputs to keep, in order; None: all.
            state: Digests of the model's files.

        Raises:
            TeacherError: It has several inputs, no such output, several where none is named, or one that
                is no tensor of numbers.
        """
        self.name, self.device, self.num_threads = name, device, num_threads
        self._session, self._preprocessing, self._state = session, preprocessing, state
        self._class_map = None if class_map is None else np.array(class_map, dtype=np.int64)
        entry = _only_input(session.get_inputs())
        found = _chosen_output(output, session.get_outputs())
        self.output = found.name
        self._input, self._dtype = entry.name, np.dtype(_TYPES[entry.type])
        if np.dtype(_TYPES[found.type]).kind != "f":
            raise TeacherError(f"output {found.name!r} is a {found.type}, expected floating logits")
        # A model that was exported for batches of one length only is given such batches.
        self._rows = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """Logits `[B, C]` of a batch `[B, *row]`, float32 on the host; `inputs_B` is left untouched.

        Raises:
            TeacherError: Rows are not what the model takes, it failed, or its output is not one row of logits
                an input, or has fewer columns than the class map names.
        """
        try:
            batch_B = self._prepared(inputs_B)
        except (ConfigError, TypeError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        parts = [self._run(part_B) for part_B in self._split(batch_B)]
        logits_BC = np.concatenate(parts)[: len(inputs_B)]
        if self._class_map is not None:
            most, columns = int(self._class_map.max()), logits_BC.shape[1]
            if most >= columns:
                raise TeacherError(
                    f"teacher {self.name!r}: class_map names output {most}, "
                    f"but it has outputs 0 to {columns - 1}"
                )
            logits_BC = logits_BC[:, self._class_map]
        return np.array(logits_BC, dtype=np.float32, order="C")

    def state_digest(self) -> str:
        """`sha256:...` over the digests of the model's files."""
        facts = json.dumps(self._state, sort_keys=True).encode()
        return f"sha256:{hashlib.sha256(facts).hexdigest()}"

    def _prepared(self, inputs_B: NDArray[Any]) -> NDArray[Any]:
        """The batch as the model's input takes it.

        Whole numbers that the model takes as such (bytes, numbers of tokens) are not sent through float32.
        """
        if self._preprocessing == PreprocessingOptions() and np.can_cast(inputs_B.dtype, self._dtype, "safe"):
            return np.ascontiguousarray(inputs_B, dtype=self._dtype)
        prepared_B = self._preprocessing.apply(to_tensor(inputs_B)).numpy()
        if self._dtype.kind != "f":
            raise ConfigError(
                f"the model takes {self._dtype}, and rows are {inputs_B.dtype} or become float32 by "
                "preprocessing; expected such rows, and no preprocessing"
            )
        return prepared_B.astype(self._dtype)

    def _split(self, batch_B: NDArray[Any]) -> list[NDArray[Any]]:
        if self._rows is None:
            return [batch_B]
        short = -len(batch_B) % self._rows
        filled_B = np.concatenate([batch_B, np.repeat(batch_B[:1], short, axis=0)]) if short else batch_B
        return [filled_B[first : first + self._rows] for first in range(0, len(filled_B), self._rows)]

    def _run(self, part_B: NDArray[Any]) -> NDArray[Any]:
        try:
            (output,) = self._session.run([self.output], {self._input: part_B})
        except Exception as error:  # onnxruntime's own classes share no base
            raise TeacherError(
                f"teacher {self.name!r}: onnxruntime raised {type(error).__name__} on {part_B.dtype} of "
                f"shape {list(part_B.shape)} for input {self._input!r}: {str(error).strip()}"
            ) from error
        if output.ndim != 2 or len(output) != len(part_B):
            raise TeacherError(
                f"teacher {self.name!r}: expected logits of shape [{len(part_B)}, classes], "
                f"found shape {list(output.shape)} in output {self.output!r}"
            )
        result: NDArray[Any] = output
        return result


def wants_cuda(device: str, num_gpus: float) -> bool:
    """Whether a device's name means CUDA, where so many GPUs are asked for."""
    return device.startswith("cuda") or (device == "auto" and num_gpus > 0)


def open_session(model: str, *, device: str, num_cpus: int, num_gpus: float) -> tuple[Any, str]:
    """A session that computes where it is meant to, and the name of that device.

    Args:
        model: The file.
        device: `auto` (CUDA where a GPU was asked for, else CPU), `cpu`, `cuda` or `cuda:N`.
        num_cpus: Threads.
        num_gpus: GPUs that were asked for.

    Raises:
        TeacherError: The device cannot be used here, or onnxruntime does not take the model.
    """
    onnxruntime = required("onnxruntime", extra="onnx")
    cuda_wanted = wants_cuda(device, num_gpus)
    index = int(device.partition(":")[2] or 0)
    cuda = {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}
    wanted = [("CUDAExecutionProvider", cuda)] if cuda_wanted else ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_cpus, 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    possible = not cuda_wanted or "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=wanted) if possible else None
    except Exception as error:  # onnxruntime's own classes share no base
        raise TeacherError(
            f"onnxruntime {onnxruntime.__version__} does not take {model}: {type(error).__name__}: "
            f"{str(error).strip()}"
        ) from error
    # Where CUDA cannot be started, onnxruntime goes on without it and only warns.
    if session is None or (cuda_wanted and session.get_providers()[0] != "CUDAExecutionProvider"):
        raise TeacherError(
            f"device = {device!r}, num_gpus = {num_gpus:g}: onnxruntime {onnxruntime.__version__} cannot use "
            "CUDA here. Install onnxruntime-gpu in place of onnxruntime, with the CUDA that it wants, or say "
            "device = 'cpu'"
        )
    return session, f"cuda:{index}" if cuda_wanted else "cpu"


def _only_input(there: Sequence[Any]) -> Any:
    if len(there) != 1:
        names = [each.name for each in there]
        raise TeacherError(f"the model has inputs {names}; expected one, as a transfer set's rows are one")
    return _of_numbers("input", there[0])


def _chosen_output(name: str | None, there: Sequence[Any]) -> Any:
    names = [each.name for each in there]
    if name is None and len(there) != 1:
        raise TeacherError(f"the model has outputs {names}; say which one is logits, in output")
    if name is not None and name not in names:
        raise TeacherError(f"the model has no output {name!r}, but {names}")
    return _of_numbers("output", there[0] if name is None else there[names.index(name)])


def _of_numbers(role: str, entry: Any) -> Any:
    if entry.type not in _TYPES:
        raise TeacherError(f"{role} {entry.name!r} is a {entry.type}, expected one of {', '.join(_TYPES)}")
    return entry
