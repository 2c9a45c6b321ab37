"""What can go wrong with a student and with nothing else."""

from __future__ import annotations

from softcask.storage_schemas.errors import SoftcaskError


class StudentError(SoftcaskError, RuntimeError):
    """A student could not be built, or its training cannot go on."""


class CheckpointError(SoftcaskError, ValueError):
    """A checkpoint is damaged, or was made by another configuration or from other rows."""
