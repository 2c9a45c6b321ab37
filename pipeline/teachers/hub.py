"""Models that lie in a folder, or on the Hugging Face Hub: where their files are on this machine.

The Hub's cache goes first and is taken as it is; only what is missing there is fetched. Tokens are left to
huggingface_hub, which finds them in the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from softcask.pipeline.teachers.installed import required
from softcask.pipeline.weights import file_digest
from softcask.storage_schemas.errors import ConfigError, TeacherError

_PATH = re.compile(r"[./~]")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def _placed(model: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if base is not None:
        path = Path(base, Path(model).expanduser()).absolute()
        if _PATH.match(model) or path.is_dir():
            return str(path)
    if not _PATH.match(model) and not _HUB_ID.fullmatch(model):
        raise ConfigError(f"expected a folder, or a name on the Hub such as 'org/model', found {model!r}")
    return model


ModelPlace = Annotated[str, AfterValidator(_placed)]
"""A folder, absolute once validated (relative to the config's own), or a name on the Hub.

A folder that stands beside the config goes before a name on the Hub, as with transformers; `./name` is always
a folder.
"""


def model_folder(
    model: str, *, needed: Sequence[str], wanted: Sequence[str], revision: str | None, offline: bool
) -> Path:
    """The folder on this machine that holds a model's files.

    Args:
        model: A folder or a name on the Hub.
        needed: Patterns of file names, each of which at least one file must match.
        wanted: Patterns of more that are fetched where they exist.
        revision: On the Hub; None is its main branch.
        offline: Whether to look into the Hub's cache alone.

    Raises:
        TeacherError: It cannot be had; says what was looked for, where, and what to do.
    """
    if _PATH.match(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise TeacherError(f"model {model}: there is no such folder")
        if missing := _missing(folder, needed):
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise TeacherError(
                f"model {model}: no {' and no '.join(missing)} in that folder, which has {there}"
            )
        return folder
    return _from_hub(model, needed, [*needed, *wanted], revision, offline)


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """`sha256:...` of the files of a folder that exist, by name."""
    return {name: file_digest(str(folder / name)) for name in sorted(names) if (folder / name).is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a model's configuration holds.

    Raises:
        TeacherError: There is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise TeacherError(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def _from_hub(
    model: str, needed: Sequence[str], patterns: Sequence[str], revision: str | None, offline: bool
) -> Path:
    hub = required("huggingface_hub", extra="hf")
    arguments: dict[str, Any] = {"revision": revision, "allow_patterns": list(patterns)}
    try:
        cached = Path(hub.snapshot_download(model, local_files_only=True, **arguments))
        if not _missing(cached, needed):
            return cached
    except Exception as error:  # not there, or only in part: one class of errors a version
        failure: Exception | None = error
    else:
        failure = None
    if not offline:
        try:
            fetched = Path(hub.snapshot_download(model, **arguments))
        except Exception as error:  # of the network, of the Hub, of its cache
            failure = error
        else:
            if missing := _missing(fetched, needed):
                raise TeacherError(
                    f"model {model!r} of the Hub has no {' and no '.join(missing)}. Weights are read from "
                    "safetensors alone: convert them, and name the folder that holds them"
                )
            return fetched
    reason = f" ({type(failure).__name__}: {str(failure).partition(chr(10))[0]})" if failure else ""
    at = f" at revision {revision!r}" if revision else ""
    raise TeacherError(
        f"model {model!r}{at} is no folder beside the run file, not whole in the Hub's cache "
        f"{hub.constants.HF_HUB_CACHE}, and "
        + ("may not be fetched (local_files_only)" if offline else "could not be fetched")
        + f"{reason}. Where there is a network, run `hf download {model}` (a private or gated model needs a "
        "token, HF_TOKEN in the environment); then bring that cache here (HF_HOME says where it lies), or "
        "name a folder that holds the files"
    )


def _missing(folder: Path, needed: Sequence[str]) -> list[str]:
    return [pattern for pattern in needed if not any(folder.glob(pattern))]
