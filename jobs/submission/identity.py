"""Names of jobs: one run with the same code has one name, so that it is not run twice by mistake."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from softcask.storage_schemas.errors import ConfigError

_STATED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def job_name(job: str, package_digest: str, variables: Mapping[str, str], packages: Sequence[str]) -> str:
    """`softcask-precompute-` and twelve digits of what would run.

    Args:
        job: The command.
        package_digest: Of the package that travels.
        variables: The job's environment variables; of their values only a digest is in the name.
        packages: pip requirements.
    """
    told = json.dumps([job, package_digest, dict(variables), list(packages)], sort_keys=True)
    return f"softcask-{job}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def checked_name(stated: str) -> str:
    """A name that a user gives to a job.

    Raises:
        ConfigError: It would not do in an address.
    """
    if not _STATED.fullmatch(stated):
        raise ConfigError(f"--id {stated}: expected letters, digits, '.', '_' and '-', at most 100 of them")
    return stated


def attempts(name: str, known: Iterable[str]) -> list[str]:
    """Of the ids of a cluster's jobs, those of this name, oldest first: NAME, NAME.2, NAME.3."""
    numbered = re.compile(re.escape(name) + r"(?:\.(\d+))?")
    found = [(int(match[1] or 1), each) for each in known if (match := numbered.fullmatch(each))]
    return [each for _, each in sorted(found)]


def next_attempt(name: str, tried: Sequence[str]) -> str:
    """The id of the attempt after these, which Ray takes once only."""
    if not tried:
        return name
    last = tried[-1].removeprefix(name).removeprefix(".")
    return f"{name}.{int(last or 1) + 1}"
