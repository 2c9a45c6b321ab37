"""Follows a job to its end, through lost connections: its log, its progress, and how it ended.

A job says how far it is in lines of JSON (`watching.RunLines`), which are shown as bars; every other line is
printed as it is.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TextIO

from softcask.jobs import console
from softcask.jobs.progress import Bars
from softcask.jobs.submission.cluster import Cluster, Job, JobLost, JobUnknown
from softcask.jobs.watching import RunBars
from softcask.pipeline.precompute.results import Progress
from softcask.storage_schemas.runs import RunProgress

CANCELLED = 143
"""Exit code of a job that was cancelled, as of a command that was told to end."""

LOST = 3
"""Exit code where nobody can tell how the job ended."""

_BETWEEN_LOOKS = 0.5
_QUIET_SECONDS = 30.0
"""Without news for so long, the cluster is asked whether it is still there."""


class Log:
    """Takes a log in pieces and shows it line by line; what was shown is not shown again."""

    def __init__(self, out: TextIO, bars: Bars) -> None:
        """Start at the beginning.

        Args:
            out: Where lines go.
            bars: Where progress goes.
        """
        self._out = out
        self._progress = RunBars(bars)
        self._taken = self._again = 0
        self._line = ""

    def begin_again(self) -> None:
        """What follows begins with what was taken before."""
        self._again = self._taken

    def take(self, piece: str) -> None:
        """The next piece, which need not end with a line."""
        skipped = min(self._again, len(piece))
        self._again -= skipped
        self._taken += len(piece) - skipped
        *lines, self._line = (self._line + piece[skipped:]).split("\n")
        for line in lines:
            self._show(line)

    def end(self) -> None:
        """Nothing more comes: show a last line that has no end."""
        if self._line:
            self._show(self._line)
            self._line = ""

    def _show(self, line: str) -> None:
        progress = progress_in(line)
        if progress is not None:
            self._progress(progress)
        else:
            self._out.write(f"{line}\n")
            self._out.flush()


def progress_in(line: str) -> Progress | None:
    """What a line says of progress, as far as it is understood here; None where it says something else."""
    if not line.startswith("{"):
        return None
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("event") != "progress":
        return None
    stage, done, total = (told.get(key) for key in ("stage", "done", "total"))
    if not (isinstance(stage, str) and type(done) is int and type(total) is int):
        return None
    try:  # the cluster's softcask may be another, and say more or less of it
        live = RunProgress.model_validate({key: told[key] for key in told.keys() & RunProgress.model_fields})
    except ValueError:
        live = None
    return Progress(stage=stage, done=done, total=total, live=live)


def follow(cluster: Cluster, name: str, out: TextIO, *, patience: float = 300.0) -> Job:
    """Show a job's log as it comes, until the job has ended.

    Args:
        cluster: Where it runs.
        name: Its id.
        out: Where its log goes.
        patience: Seconds for which the cluster may give no answer.

    Raises:
        JobLost: It gave none for longer, or does not know the job any more.
    """
    silent_since: float | None = None
    with Bars() as bars:
        log = Log(out, bars)
        while True:
            try:
                asyncio.run(_take_log(cluster, name, log))
                job = cluster.job(name)
                silent_since = None
                if job.ended:
                    log.end()
                    return job
            except JobUnknown:
                raise
            except JobLost as error:
                if silent_since is None:
                    silent_since = time.monotonic()
                    bars.line(f"{error}; trying again for {patience:.0f} s")
                if time.monotonic() - silent_since >= patience:
                    raise
            time.sleep(_BETWEEN_LOOKS)


async def _take_log(cluster: Cluster, name: str, log: Log) -> None:
    log.begin_again()
    pieces = cluster.follow_log(name)
    while True:
        coming = asyncio.ensure_future(anext(pieces, None))
        while not coming.done():
            done, _ = await asyncio.wait({coming}, timeout=_QUIET_SECONDS)
            if not done and (await asyncio.to_thread(cluster.job, name)).ended:
                coming.cancel()
                return
        piece = coming.result()
        if piece is None:
            return
        log.take(piece)


def exit_code(job: Job) -> int:
    """What a command that waited for this job ends with: what the job's own command ended with.

    A command that was killed by a signal gives 128 and its number, as in a shell.
    """
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return CANCELLED
    if job.exit_code is None:
        return LOST
    return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code


def tell_end(job: Job, address: str) -> None:
    """Say how a job ended, and what to do where it ended badly."""
    code = exit_code(job)
    if job.status == "SUCCEEDED":
        console.note(f"job {job.id} succeeded")
    elif job.status == "STOPPED":
        console.complain(f"job {job.id} was cancelled; what it committed is safe: submit again to go on")
    elif code == LOST:
        console.complain(
            f"job {job.id} was lost: {_first_line(job.message)}. What it committed is safe: submit again "
            "to go on"
        )
    elif "No module named softcask" in job.message or "No module named 'softcask" in job.message:
        console.complain(
            f"job {job.id} failed with exit code {code}: the cluster at {address} has no softcask. Its "
            "nodes need the version that you have here: use the image of docker/engine.Dockerfile, or "
            "submit with --pip"
        )
    else:
        console.complain(f"job {job.id} failed with exit code {code}; its log says why")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["Ray does not say why"])[0].rstrip(".")
