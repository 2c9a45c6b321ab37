"""Training a student from a store: loader, losses, loop. No Ray, no teachers; torch once training starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcask.pipeline.student.loader import SoftTargetLoader, StudentBatch
    from softcask.pipeline.student.results import StudentProgress, StudentResult
    from softcask.pipeline.student.training import train_student

__all__ = ["SoftTargetLoader", "StudentBatch", "StudentProgress", "StudentResult", "train_student"]

_HOMES = {
    "SoftTargetLoader": "loader",
    "StudentBatch": "loader",
    "StudentProgress": "results",
    "StudentResult": "results",
    "train_student": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
