"""The small labelled world of the student's tests."""

from __future__ import annotations

from tests.pipeline.student.conftest import make_world, one_thread, world

__all__ = ["make_world", "one_thread", "world"]
