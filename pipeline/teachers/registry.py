"""The kinds of teacher that a config may name; adding one is one line here, or an entry point elsewhere."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.teachers.base import TeacherOptions

TEACHERS: Registry[type[TeacherOptions]] = Registry(
    part="teacher",
    group="softcask.teachers",
    builtin={
        "onnx": "softcask.pipeline.teachers.onnx_kind:OnnxTeacherOptions",
        "timm": "softcask.pipeline.teachers.timm_kind:TimmTeacherOptions",
        "torch": "softcask.pipeline.teachers.torch_kind:TorchTeacherOptions",
        "torchvision": "softcask.pipeline.teachers.torchvision_kind:TorchvisionTeacherOptions",
        "transformers": "softcask.pipeline.teachers.transformers_kind:TransformersTeacherOptions",
    },
)
