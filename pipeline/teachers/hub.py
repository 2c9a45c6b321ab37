"""Models that lie in a folder, or on the Hugging Face Hub: where their files are on this machine.

The Hub's cache goes first and is taken as it is; only what is missing there is fetched. Tokens are left to
huggingface_hub, which finds them in the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from softcask.pipeline.parts import MAY_BE_PATH
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


ModelPlace = Annotated[str, AfterValidator(_placed), MAY_BE_PATH]
"""A folder, absolute once validated (relative to the config's own), or a name on the Hub.

A folder that stands beside the config goes before a name on the Hub, as with transformers; `./name` is always
a folder.
"""


Missing = Callable[[Path], Sequence[str]]
"""What a folder lacks to be a whole model, in words; empty where it lacks nothing."""


def lacking(*names: str) -> Missing:
    """Missed are those of these files that are not there."""
    return lambda folder: [name for name in names if not (folder / name).is_file()]


def model_folder(
    model: str, *, files: Sequence[str], missing: Missing, revision: str | None, offline: bool
) -> Path:
    """The folder on this machine that holds a model's files.

    Args:
        model: A folder or a name on the Hub.
        files: Patterns of the files that are fetched where they exist.
        missing: What is asked of a folder.
        revision: On the Hub; None is its main branch.
        offline: Whether to look into the Hub's cache alone.

    Raises:
        TeacherError: It cannot be had; says what was looked for, where, and what to do.
    """
    if not _PATH.match(model):
        return _from_hub(model, files, missing, revision, offline)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise TeacherError(f"model {model}: there is no such folder")
    if lacks := missing(folder):
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise TeacherError(f"model {model}: no {' and no '.join(lacks)} in that folder, which has {there}")
    return folder


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
    model: str, files: Sequence[str], missing: Missing, revision: str | None, offline: bool
) -> Path:
    hub = required("huggingface_hub", extra="hf")
    failure: Exception | None = None
    for alone in (True,) if offline else (True, False):
        try:
            snapshot = hub.snapshot_download(
                model, revision=revision, allow_patterns=list(files), local_files_only=alone
            )
        except Exception as error:  # of the network, of the Hub, of its cache: another class each
            failure = error
            continue
        lacks = missing(Path(snapshot))
        if not lacks:
            return Path(snapshot)
        failure = FileNotFoundError(f"it has no {' and no '.join(lacks)}")
    reason = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
    at = f" at revision {revision!r}" if revision else ""
    raise TeacherError(
        f"model {model!r}{at} is no folder beside the run file, "
        f"not whole in the Hub's cache {hub.constants.HF_HUB_CACHE}, and "
        f"{'may not be fetched (local_files_only)' if offline else 'could not be fetched'} ({reason}). Where "
        f"there is a network, run `hf download {model}` (a private or gated one needs a token, HF_TOKEN in "
        "the environment); then bring that cache here (HF_HOME says where it lies), or name a folder that "
        "holds the files. Weights are read from safetensors alone"
    )
