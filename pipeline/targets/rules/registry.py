"""The rules known by name; others register under the entry-point group `softcask.rules`."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.targets.rules.base import Rule

RULES: Registry[Rule] = Registry(
    part="rule",
    group="softcask.rules",
    builtin={
        "geometric": "softcask.pipeline.targets.rules.geometric:geometric",
        "mean": "softcask.pipeline.targets.rules.mean:mean",
    },
)
