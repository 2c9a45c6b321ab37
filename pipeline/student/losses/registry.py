"""The losses known by name; others register under the entry-point group `softcask.losses`."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.student.losses.base import LossOptions

LOSSES: Registry[type[LossOptions]] = Registry(
    part="loss",
    group="softcask.losses",
    builtin={
        "compressed_kl": "softcask.pipeline.student.losses.compressed_kl:CompressedKL",
        "distillation": "softcask.pipeline.student.losses.distillation:Distillation",
        "hard": "softcask.pipeline.student.losses.hard:HardLabels",
        "jensen_shannon": "softcask.pipeline.student.losses.jensen_shannon:JensenShannon",
        "logit_matching": "softcask.pipeline.student.losses.logit_matching:LogitMatching",
        "reverse_kl": "softcask.pipeline.student.losses.reverse_kl:ReverseKL",
    },
)
