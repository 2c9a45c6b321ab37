"""Training a student from a store: loader, losses, loop. No Ray, no teachers; torch once training starts.

For a training loop of one's own, `from softcask import student`, and then `student.loader(...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcask.pipeline.student.batch import StudentBatch
    from softcask.pipeline.student.loading import StudentLoader, loader
    from softcask.pipeline.student.mixed_labels import batch_loss
    from softcask.pipeline.student.parts import Part, part
    from softcask.pipeline.student.results import StudentProgress, StudentResult
    from softcask.pipeline.student.selecting import Between, Selection
    from softcask.pipeline.student.training import train_student

__all__ = [
    "loader",
    "StudentLoader",
    "StudentBatch",
    "part",
    "Part",
    "Selection",
    "Between",
    "batch_loss",
    "train_student",
    "StudentProgress",
    "StudentResult",
]

_HOMES = {
    "loader": "loading",
    "StudentLoader": "loading",
    "StudentBatch": "batch",
    "part": "parts",
    "Part": "parts",
    "Selection": "selecting",
    "Between": "selecting",
    "batch_loss": "mixed_labels",
    "train_student": "training",
    "StudentProgress": "results",
    "StudentResult": "results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
