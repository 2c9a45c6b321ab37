"""Every document that softcask writes down and checks: those of a store, and those beside a student."""

from __future__ import annotations

from softcask.storage_schemas.manifest import (
    Generation,
    Manifest,
    Pointer,
    RootManifest,
    SegmentManifest,
    SourceFacts,
    TeacherManifest,
    UnitCommit,
)
from softcask.storage_schemas.runs import RunClaim, RunProgress, RunRecord, StudentSavings
from softcask.storage_schemas.views import ViewManifest

DOCUMENTS: tuple[type[Manifest], ...] = (
    RootManifest,
    SegmentManifest,
    ViewManifest,
    TeacherManifest,
    UnitCommit,
    Generation,
    Pointer,
    RunRecord,
    RunProgress,
    RunClaim,
    SourceFacts,
    StudentSavings,
)
"""For the exported JSON Schema."""
