"""Turn what a filesystem raises into one error of ours: what, where, and what to do next."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from softcask.pipeline.store.access.answers import advice, answer_of, redacted, says_no_bucket
from softcask.storage_schemas.errors import SoftcaskError, StoreAccess, StoreFull, StoreNotFound


@contextlib.contextmanager
def explained(verb: str, where: str, *, local: bool) -> Iterator[None]:
    """Raise `StoreNotFound` or `StoreAccess` for whatever is raised inside.

    Args:
        verb: What is done: "read", "write".
        where: To what; shown.
        local: Whether on this machine's disk, where only an OSError is the filesystem's.
    """
    try:
        yield
    except SoftcaskError:
        raise
    except FileNotFoundError as error:
        if says_no_bucket(error):
            raise StoreAccess(_told(verb, where, error)) from error
        raise StoreNotFound(f"there is no {where}") from error
    except NotADirectoryError as error:
        if verb == "read":  # a file where a folder would be: what is looked for is not there
            raise StoreNotFound(f"there is no {where}") from error
        raise StoreAccess(f"could not {verb} {where}: {error}") from error
    except PermissionError as error:
        hint = "" if advice(error) else " Check the credentials or the folder's owner."
        raise StoreAccess(
            f"no permission to {_told(verb, where, error).removeprefix('could not ')}{hint}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no space left to {verb} {where}. What was committed is safe; "
                "free some space and run the same command again."
            ) from error
        raise StoreAccess(_told(verb, where, error)) from error
    except MemoryError as error:
        raise StoreAccess(f"no memory to {verb} {where}: it is larger than this machine can hold") from error
    except Exception as error:
        if local:
            raise
        # Drivers raise what they like: botocore's NoCredentialsError is no OSError.
        raise StoreAccess(_told(verb, where, error)) from error


def _told(verb: str, where: str, error: Exception) -> str:
    kind = str(answer_of(error)) or ("" if isinstance(error, OSError) else type(error).__name__)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    told = f"could not {verb} {where}: {f'{kind}: ' if kind else ''}{error}{notes}".rstrip(".")
    return redacted(f"{told}. {advice(error)}".rstrip())
