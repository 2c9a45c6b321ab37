"""Training a student from a store: loader, losses, loop. No Ray, no teachers; torch once training starts.

For a training loop of one's own, `from softcask import student`, and then `student.loader(...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcask.pipeline.student.loading.batch import StudentBatch
    from softcask.pipeline.student.loading.loader import StudentLoader, loader
    from softcask.pipeline.student.loading.parts import Part, part
    from softcask.pipeline.student.loading.selecting import Between, Selection
    from softcask.pipeline.student.training.loop import train_student
    from softcask.pipeline.student.training.mixed_labels import batch_loss
    from softcask.pipeline.student.training.results import StudentProgress, StudentResult

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
    "loader": "loading.loader",
    "StudentLoader": "loading.loader",
    "StudentBatch": "loading.batch",
    "part": "loading.parts",
    "Part": "loading.parts",
    "Selection": "loading.selecting",
    "Between": "loading.selecting",
    "batch_loss": "training.mixed_labels",
    "train_student": "training.loop",
    "StudentProgress": "training.results",
    "StudentResult": "training.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
