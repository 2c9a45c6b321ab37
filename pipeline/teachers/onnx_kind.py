"""The kind `onnx`: a model in an ONNX file, run by onnxruntime.

What a fingerprint holds is the file, and the files that it keeps tensors in. onnxruntime is imported by
`load` alone; `onnx` is needed wherever the teacher is fingerprinted, to find those other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.installed import required
from softcask.pipeline.teachers.onnx_teacher import OnnxTeacher, open_session, wants_cuda
from softcask.pipeline.teachers.outputs import ClassMap, check_class_map, kept_outputs
from softcask.pipeline.weights import file_digest, local_size
from softcask.storage_schemas.errors import ConfigError, TeacherError, WeightsError

_COUNTED = {"kind", "output", "preprocessing", "class_map", "code_version"}


class OnnxTeacherOptions(TeacherOptions):
    """A classifier in an ONNX file.

    Attributes:
        model: The file, on a disk of this machine.
        output: Name of the output that is logits; None: its only one.
        preprocessing: What is done to each row first; what comes of it is cast to what its one input takes.
        device: `auto` (CUDA where `num_gpus` asks for it, else CPU), `cpu`, `cuda` or `cuda:N`.
        class_map: Numbers of the outputs to keep, in the order of the store's classes; None: all.
    """

    kind: Literal["onnx"] = "onnx"
    model: ResolvedPath
    output: str | None = None
    preprocessing: PreprocessingOptions = PreprocessingOptions()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    class_map: ClassMap | None = None

    @model_validator(mode="after")
    def _check_class_map(self) -> Self:
        check_class_map(self.class_map)
        if "://" in self.model:
            raise ConfigError(f"expected a file on a disk of this machine, found {self.model}")
        return self

    def load(self) -> OnnxTeacher:
        """Open the model on its device, ready to label.

        Raises:
            TeacherError: There is no such model, it has no such input or output, gives probabilities, or its
                device cannot be used here.
        """
        try:
            kept = kept_outputs(self.class_map, None)
            graph = self._read().graph
            digests = self._digests()
            session, device = open_session(
                self.model, device=self.device, num_cpus=self.num_cpus, num_gpus=self.num_gpus
            )
            teacher = OnnxTeacher(
                self.name,
                session,
                device=device,
                num_threads=self.num_cpus,
                output=self.output,
                preprocessing=self.preprocessing,
                class_map=kept,
                state=digests,
            )
            _refuse_probabilities(graph, teacher.output)
        except (WeightsError, TeacherError, ConfigError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        return teacher

    def fingerprint_fields(self) -> dict[str, Any]:
        """What pins this teacher's name; the model is read and hashed, nothing is run.

        Raises:
            TeacherError: The model, or a file that it keeps tensors in, cannot be read.
        """
        try:
            digests = self._digests()
        except (WeightsError, TeacherError) as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        return {**self.model_dump(mode="json", include=_COUNTED, exclude_none=True), **digests}

    def weights_bytes(self) -> int | None:
        """Size of the model, with the files that it keeps tensors in; None where it cannot be read."""
        try:
            beside = set(_files_of(self._read().graph))
        except TeacherError:
            return None
        return local_size(self.model, *(str(Path(self.model).parent / name) for name in beside))

    def recorded(self) -> dict[str, Any]:
        """The operator sets that the model was written for, and what it is run by."""
        try:
            model = self._read()
        except TeacherError as error:
            raise TeacherError(f"teacher {self.name!r}: {error}") from error
        return {
            "opset": {each.domain or "ai.onnx": each.version for each in model.opset_import},
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "on": "CUDA" if wants_cuda(self.device, self.num_gpus) else "CPU",
        }

    def _read(self) -> Any:
        """The model without the tensors that lie in other files."""
        onnx = required("onnx", extra="onnx")
        if not Path(self.model).is_file():
            raise TeacherError(f"model {self.model}: there is no such file")
        try:
            return onnx.load(self.model, load_external_data=False)
        except Exception as error:  # protobuf's, and of what else rubbish makes it stumble over
            raise TeacherError(
                f"model {self.model} cannot be read as ONNX ({type(error).__name__}: {error})"
            ) from error

    def _digests(self) -> dict[str, Any]:
        names = sorted(set(_files_of(self._read().graph)))
        if strange := [name for name in names if Path(name).name != name]:
            raise TeacherError(
                f"model {self.model} keeps tensors in {strange[0]!r}; expected files in its own folder"
            )
        beside = {name: file_digest(str(Path(self.model).parent / name)) for name in names}
        return {"model": file_digest(self.model), **({"beside": beside} if beside else {})}


def _files_of(graph: Any) -> Iterator[str]:
    """Names of the files that tensors of a graph, or of a graph within it, are kept in."""
    tensors = [*graph.initializer]
    for sparse in graph.sparse_initializer:
        tensors += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _files_of(inner)
    for tensor in tensors:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _refuse_probabilities(graph: Any, output: str) -> None:
    for node in graph.node:
        if node.op_type == "Softmax" and output in node.output:
            raise TeacherError(
                f"output {output!r} is made by Softmax: probabilities, and what is wanted are logits. Export "
                f"the model without its last layer, or with {node.input[0]!r} as an output too, and name that"
            )
