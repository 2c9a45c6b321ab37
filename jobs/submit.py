"""`softcask submit`: the same command, as a job of a Ray cluster.

The config's folder travels with the job, so that its relative paths mean there what they mean here. The
store is the exception: it must outlive the job's folder, so that its path is made absolute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.storage_schemas.errors import ExecutorError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from softcask.pipeline.precompute.config import RunConfig

EXAMPLES = (
    "Examples:\n\nsoftcask submit --address http://HOST:8265 precompute run.toml\n\n"
    "softcask submit --address http://HOST:8265 precompute run.toml --no-wait\n\n"
    "Ray does not send files that .gitignore names, unless RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1."
)
_SECONDS_BETWEEN_LOOKS = 0.5
_EXCLUDED = (".git", ".venv", "__pycache__")


class JobKind(StrEnum):
    """What can be submitted."""

    PRECOMPUTE = "precompute"


Job = Annotated[JobKind, typer.Argument(metavar="precompute", help="The command to run there.")]
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="The cluster's dashboard: http://HOST:8265."
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")]


def submit(
    job: Job,
    run: RunFile,
    address: Address,
    settings: Settings = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Run a command on a Ray cluster, through its job API; exits as the job does.

    The config's folder is sent along. A store that is a path must be one that the cluster sees.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run

    config = load_run(run, parse_overrides(settings or ()))
    client = _connect(address)
    try:
        submitted = client.submit_job(
            entrypoint=entrypoint(job, run, config, settings or []), runtime_env=environment(run, config)
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ExecutorError(f"{address} did not take the job: {error}") from error
    console.note(f"job {submitted} at {address}")
    if not wait:
        if as_json:
            console.emit({"job": submitted, "address": address, "status": "SUBMITTED", "exit_code": None})
        else:
            console.say(submitted)
        return
    try:
        # The log is what the job prints; it must not mix with the answer.
        _follow(client, submitted, sys.stderr if as_json else sys.stdout)
        status, code = _outcome(client, submitted)
    except KeyboardInterrupt as error:
        console.note(f"the job goes on; end it with: ray job stop --address {address} {submitted}")
        raise typer.Exit(130) from error
    except (RuntimeError, OSError) as error:
        raise ExecutorError(
            f"lost {address} while job {submitted} ran there: {error}. If the cluster is gone, submit again: "
            "what is committed is safe."
        ) from error
    if as_json:
        console.emit({"job": submitted, "address": address, "status": status, "exit_code": code})
    raise typer.Exit(code)


def entrypoint(job: str, run: Path, config: RunConfig, settings: list[str]) -> str:
    """The shell command of the job, to be run in the config's folder."""
    stated = ["executor.address=auto", *settings]
    if "://" not in config.store.uri:
        stated.append(f"store.uri={config.store.uri}")
    flags = [part for setting in stated for part in ("--set", setting)]
    # Not the `softcask` script: a cluster's PATH may lack the folder it was installed to.
    return shlex.join(["python", "-m", "softcask.jobs.cli", str(job), run.name, *flags])


def environment(run: Path, config: RunConfig) -> dict[str, Any]:
    """Ray's `runtime_env` of the job: the config's folder, without a store that lies in it."""
    folder = run.absolute().parent
    excluded = list(_EXCLUDED)
    store = Path(config.store.uri)
    if store.is_relative_to(folder) and store != folder:
        excluded.append(f"/{store.relative_to(folder)}")
    return {"working_dir": str(folder), "excludes": excluded}


def _connect(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        # Ray would take it for another of its ports, and wait half a minute for an answer.
        raise ExecutorError(
            f"cannot reach Ray's job API at {address}: expected http:// or https:// before it. Give the "
            "address of a running cluster's dashboard, such as http://HOST:8265."
        )
    # Ray lets these two overrule the address that it is given.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    os.environ.pop("RAY_ADDRESS", None)
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ExecutorError(
            f"cannot reach Ray's job API at {address}: {reason}. Give the address of a running cluster's "
            "dashboard, such as http://HOST:8265."
        ) from error


def _follow(client: JobSubmissionClient, job: str, out: TextIO) -> None:
    async def tail() -> None:
        async for lines in client.tail_job_logs(job):
            out.write(lines)
            out.flush()

    try:
        asyncio.run(tail())
    except (RuntimeError, OSError) as error:
        console.warn(f"lost the job's log ({error}); the job goes on, waiting for its end")


def _outcome(client: JobSubmissionClient, job: str) -> tuple[str, int]:
    while not (found := client.get_job_info(job)).status.is_terminal():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if found.status == "SUCCEEDED":
        console.note(f"job {job} succeeded")
        return str(found.status.value), 0
    if found.status == "FAILED" and found.driver_exit_code:
        reason = f"with exit code {found.driver_exit_code}; its log says why"
    else:
        reason = str(found.message)
    console.complain(f"job {job} {found.status.lower()} {reason}")
    return str(found.status.value), found.driver_exit_code or 1
