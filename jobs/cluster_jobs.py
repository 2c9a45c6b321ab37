"""`softcask jobs`: what was submitted to a cluster; follow it, read its log, end it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import ClusterUrl, Json, stated_address
from softcask.jobs.submit import attend

if TYPE_CHECKING:
    from softcask.jobs.submission.cluster import Cluster, Job

EXAMPLES = (
    "Examples:\n\nsoftcask jobs list --address http://HOST:8265\n\n"
    "softcask jobs attach ID --address http://HOST:8265\n\n"
    "softcask jobs cancel ID --address http://HOST:8265\n\nRAY_API_SERVER_ADDRESS may stand for --address."
)

app = typer.Typer(
    name="jobs",
    help="Jobs of a Ray cluster: list them, follow, read or end one.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Jobs too that softcask did not submit.")]


@app.command("list", epilog=EXAMPLES)
def list_(address: ClusterUrl = None, every: All = False, as_json: Json = False) -> None:
    """Show the jobs that were submitted, the newest last."""
    jobs = [job for job in _cluster(address).jobs() if every or "softcask" in job.metadata]
    if as_json:
        console.emit({"jobs": [_told(job) for job in jobs]})
    elif not jobs:
        console.say("no jobs" if every else "no jobs of softcask (--all shows others)")
    else:
        console.show_table(
            ["job", "status", "began", "took", "store", "teachers"],
            [
                [
                    job.id,
                    _status(job),
                    _time(job.began),
                    _took(job),
                    job.metadata.get("store", "-"),
                    job.metadata.get("teachers", "-"),
                ]
                for job in jobs
            ],
        )


@app.command(epilog=EXAMPLES)
def attach(name: Id, address: ClusterUrl = None, as_json: Json = False) -> None:
    """Follow a job's log to its end, from the beginning; exits as the job does."""
    cluster = _cluster(address)
    attend(cluster, cluster.job(name), as_json=as_json)


@app.command(epilog=EXAMPLES)
def logs(name: Id, address: ClusterUrl = None) -> None:
    """Print what a job has printed so far."""
    sys.stdout.write(_cluster(address).log(name))


@app.command(epilog=EXAMPLES)
def cancel(name: Id, address: ClusterUrl = None, as_json: Json = False) -> None:
    """End a job; what it committed stays, and submitting it again goes on from there."""
    cluster = _cluster(address)
    job = cluster.job(name)
    if not job.ended:
        cluster.cancel(job.id)
        job = cluster.wait(job.id)
    if as_json:
        console.emit(_told(job))
    elif job.status == "STOPPED":
        console.say(f"job {job.id} was cancelled; what it committed is safe: submit again to go on")
    else:
        console.say(f"job {job.id} had ended before: {_status(job)}")


def _cluster(address: str | None) -> Cluster:
    from softcask.jobs.submission.cluster import Cluster

    return Cluster(stated_address(address))


def _told(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "status": job.status,
        "exit_code": job.exit_code,
        "began": job.began,
        "finished": job.finished,
        "metadata": dict(job.metadata),
    }


def _status(job: Job) -> str:
    failed = job.status == "FAILED" and job.exit_code is not None
    return f"{job.status}, exit code {job.exit_code}" if failed else job.status


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"


def _took(job: Job) -> str:
    return f"{job.finished - job.began:,.0f} s" if job.began and job.finished else "-"
