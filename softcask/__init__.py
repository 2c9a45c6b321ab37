"""softcask: soft targets, distilled once and kept in cask.

The names below are all that most people need. Each is imported when it is first asked for, so that
`import softcask` costs nothing and reading a store needs neither torch nor Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcask.pipeline import student
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.driver import precompute
    from softcask.pipeline.store.reading.reader import Store
    from softcask.pipeline.store.reading.reader import open_store as open
    from softcask.pipeline.student.config import load_student
    from softcask.pipeline.student.training.loop import train_student
    from softcask.pipeline.targets.soft_targets import SoftTargets
    from softcask.storage_schemas.errors import SoftcaskError

    __version__: str

__all__ = [
    "open",
    "Store",
    "SoftTargets",
    "load_run",
    "precompute",
    "load_student",
    "train_student",
    "student",
    "SoftcaskError",
    "__version__",
]

_HOMES = {
    "open": "pipeline.store.reading.reader:open_store",
    "Store": "pipeline.store.reading.reader:Store",
    "SoftTargets": "pipeline.targets.soft_targets:SoftTargets",
    "load_run": "pipeline.precompute.config:load_run",
    "precompute": "pipeline.precompute.driver:precompute",
    "load_student": "pipeline.student.config:load_student",
    "train_student": "pipeline.student.training.loop:train_student",
    "student": "pipeline.student:",
    "SoftcaskError": "storage_schemas.errors:SoftcaskError",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("softcask")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _HOMES[name].partition(":")
    home = import_module(f"{__name__}.{module}")
    return getattr(home, attribute) if attribute else home


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
