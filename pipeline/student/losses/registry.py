"""The losses known by name; others register under the entry-point group `softcask.losses`."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.student.losses.base import LossOptions

LOSSES: Registry[type[LossOptions]] = Registry(
    part="loss",
    group="softcask.losses",
    builtin={
        "distillation": "softcask.pipeline.student.losses.distillation:Distillation",
        "hard": "softcask.pipeline.student.losses.hard:HardLabels",
        "logit_matching": "softcask.pipeline.student.losses.logit_matching:LogitMatching",
    },
)
