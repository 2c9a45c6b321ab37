"""Every error that softcask raises on purpose, in one place.

Each leaf also inherits the builtin a caller would expect, so that code which knows nothing of softcask can
still catch it. A message says what was found, what was expected, where, and what to do next.
"""

from __future__ import annotations


class SoftcaskError(Exception):
    """Base of all errors raised by softcask; the command prints it as one message and exits with 2."""


class ConfigError(SoftcaskError, ValueError):
    """A run or student file is not valid; the message lists every problem with its place in the file."""


class UnknownKind(SoftcaskError, ValueError):
    """A kind (teacher, source, codec, rule, loss, executor) that no registry knows."""


class FactoryError(SoftcaskError, RuntimeError):
    """A `module:function` named by the user's config could not be imported or raised when called."""


class TransferSetError(SoftcaskError, ValueError):
    """The transfer set cannot be used: a missing or truncated file, duplicate ids, labels out of range."""


class QuarantineExceeded(TransferSetError):
    """More rows were unreadable than the config allows."""


class SpecialistsError(SoftcaskError, ValueError):
    """Class sets, or probabilities of a generalist and its specialists, that cannot be merged."""


class MisalignedRows(SoftcaskError, ValueError):
    """Inputs and soft targets do not describe the same rows."""


class TeacherError(SoftcaskError, RuntimeError):
    """A teacher could not be built or gave unusable logits."""


class TeacherOutOfMemory(TeacherError, MemoryError):
    """A batch does not fit into the memory of a teacher's device."""


class WeightsError(SoftcaskError, ValueError):
    """A weights file is missing, cannot be read safely, or does not fit the model."""


class StudentError(SoftcaskError, RuntimeError):
    """A student could not be built, or its training cannot go on."""


class CheckpointError(SoftcaskError, ValueError):
    """A checkpoint is damaged, or was made by another configuration or from other rows."""


class StoreError(SoftcaskError, RuntimeError):
    """The store cannot be used as asked."""


class StoreNotFound(StoreError, FileNotFoundError):
    """There is no store at this place."""


class StoreAccess(StoreError, OSError):
    """The filesystem refused: no permission, no space, or a fault of its own."""


class StoreFull(StoreAccess):
    """The filesystem has no space left, or the user's share of it is used up."""


class FormatTooNew(StoreError):
    """The store was made by a newer softcask than this one."""


class ManifestMismatch(StoreError, ValueError):
    """What is about to run differs from what the store was made with, field by field."""


class CorruptObject(StoreError, ValueError):
    """An object's bytes do not match what was committed; the message names the object."""


class CodecDrift(StoreError):
    """A codec fitted on some rows does far worse on others."""


class StoreBusy(StoreError):
    """Another driver is at work on the store, and one of the two wants it for itself."""


class IncompleteStore(StoreError):
    """Rows that were planned are not committed yet, and the caller did not allow a partial store."""


class ExchangeError(SoftcaskError, ValueError):
    """A foreign file cannot be imported, an export or a derived entry cannot be made as asked."""


class ExecutorError(SoftcaskError, RuntimeError):
    """The executor lost its workers, or could not get any, and gave up."""


class UnitsGivenUp(ExecutorError):
    """Units failed again and again; all others are committed and sealed. The message lists them."""
