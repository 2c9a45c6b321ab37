"""Libraries that only some kinds of teacher need: imported when they are asked for, missed in plain words."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from softcask.storage_schemas.errors import TeacherError


def required(module: str, *, extra: str) -> ModuleType:
    """Import a library.

    Args:
        module: Its name, dotted where a part of it is meant.
        extra: The extra of softcask that brings it.

    Raises:
        TeacherError: It is not installed, or cannot be imported here; the original error is the cause.
    """
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or library).partition(".")[0]
        by = "" if missing == library else f", which {library} needs"
        raise TeacherError(
            f"{missing} is not installed here{by}: pip install 'softcask[{extra}]', on workers, too"
        ) from error
    except (Exception, SystemExit) as error:
        first_line = str(error).partition("\n")[0]
        raise TeacherError(
            f"{library} is installed here and cannot be imported ({type(error).__name__}: {first_line}). "
            "Libraries beside torch, torchvision above all, must be builds for this very torch"
        ) from error
