"""`softcask submit`: the same command, as a job of a Ray cluster; shown, followed, and ended as it ends."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import ClusterUrl, Json, RunFile, Settings, stated_address

if TYPE_CHECKING:
    from softcask.jobs.submission.cluster import Cluster, Job
    from softcask.jobs.submission.submission import Submission

EXAMPLES = (
    "Examples:\n\nsoftcask submit precompute run.toml --dry-run\n\n"
    "softcask submit --address http://HOST:8265 precompute run.toml\n\n"
    "softcask submit --address http://HOST:8265 precompute run.toml --env AWS_PROFILE --no-wait\n\n"
    "softcask jobs list --address http://HOST:8265"
)
_MOST_SHOWN = 20


class JobKind(StrEnum):
    """What can be submitted."""

    PRECOMPUTE = "precompute"


Kind = Annotated[JobKind, typer.Argument(metavar="precompute", help="The command to run there.")]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME",
        help="An environment variable that the job gets, with its value here; NAME=VALUE for what is no "
        "secret. Repeatable; no other variable travels.",
        show_default=False,
    ),
]
Packages = Annotated[
    list[str] | None,
    typer.Option(
        "--pip",
        metavar="REQUIREMENT",
        help="A package that pip installs for the job, or a .txt file of them. Repeatable.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--id", metavar="NAME", help="The job's id; by default, one for equal runs.", show_default=False
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Run it even if the same is at work, or has succeeded.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would travel; nothing is sent.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")]


def submit(
    job: Kind,
    run: RunFile,
    address: ClusterUrl = None,
    settings: Settings = None,
    variables: Variables = None,
    packages: Packages = None,
    name: Name = None,
    again: Again = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Run a command on a Ray cluster, through its job API; exits as the job does.

    The run file travels with its --set put in, the folders of its python_path, and the local files that it
    names. Submitting the same again follows the job that is at work; Ctrl-C leaves it at work.
    """
    from softcask.jobs.submission.cluster import Cluster
    from softcask.jobs.submission.submission import others_at_work, prepare, send

    submission = prepare(
        job,
        run,
        settings=settings or (),
        variables=variables or (),
        packages=packages or (),
        name=name,
    )
    if dry_run:
        show(submission, as_json=as_json)
        return
    url = stated_address(address)
    for secret in submission.secrets:
        console.warn(f"whoever reaches {url} can read the value of {secret}, which travels with the job")
    cluster = Cluster(url)
    sent, is_new = send(submission, cluster, again=again)
    console.note(f"job {sent.id} at {url}: {_summary(submission)}" if is_new else _already(sent))
    for other in others_at_work(submission, cluster, sent):
        console.warn(f"job {other} is at work on the same store; to end it: softcask jobs cancel {other}")
    if wait:
        attend(cluster, sent, as_json=as_json)
    elif as_json:
        console.emit({"job": sent.id, "address": url, "status": sent.status, "exit_code": None})
    else:
        console.say(sent.id)


def attend(cluster: Cluster, job: Job, *, as_json: bool) -> None:
    """Follow a job to its end, say how it ended, and exit as it did.

    Raises:
        typer.Exit: Always; with 130 where the user goes and the job stays.
    """
    from softcask.jobs.submission.cluster import JobLost
    from softcask.jobs.submission.following import LOST, exit_code, follow, tell_end

    here = f"{job.id} --address {cluster.address}"
    try:
        # The log is what the job prints; it must not mix with the answer.
        ended = follow(cluster, job.id, sys.stderr if as_json else sys.stdout)
    except KeyboardInterrupt as error:
        console.note(
            f"the job goes on. Follow it again: softcask jobs attach {here}\nEnd it: softcask jobs cancel "
            f"{here}"
        )
        raise typer.Exit(130) from error
    except JobLost as error:
        console.complain(
            f"lost job {job.id}: {error}. If the cluster is there again, follow the job: softcask jobs "
            f"attach {here}. If it is gone, submit again: what is committed is safe."
        )
        raise typer.Exit(LOST) from error
    tell_end(ended, cluster.address)
    code = exit_code(ended)
    if as_json:
        console.emit({"job": ended.id, "address": cluster.address, "status": ended.status, "exit_code": code})
    raise typer.Exit(code)


def show(submission: Submission, *, as_json: bool) -> None:
    """What would travel, what would not, and under which name."""
    package = submission.package
    not_sent = {_place(place): str(path) for place, path in package.not_sent}
    if as_json:
        console.emit(
            {
                "job": submission.name,
                "command": submission.command,
                "store": package.config.store.uri,
                "run_file": package.text,
                "files": {each.name: each.size for each in package.sent},
                "bytes": package.bytes,
                "left_behind": {str(each.source): each.reason for each in package.left},
                "not_sent": not_sent,
                "variables": sorted(submission.variables),
                "pip": list(submission.requirements),
            }
        )
        return
    console.say(f"job         {submission.name}")
    console.say(f"command     {submission.command}")
    console.say(f"store       {package.config.store.uri}")
    console.say(f"travels     {_summary(submission)}")
    for each in sorted(package.sent, key=lambda each: -each.size)[:_MOST_SHOWN]:
        console.say(f"            {console.size(each.size):>10}  {each.name}")
    if len(package.sent) > _MOST_SHOWN:
        console.say(f"            and {len(package.sent) - _MOST_SHOWN:,} smaller files (--json names all)")
    for place, path in not_sent.items():
        console.say(f"not sent    {path} ({place}): every node must have it there")
    for left in package.left[:_MOST_SHOWN]:
        console.say(f"stays here  {left.source}: {left.reason}")
    if len(package.left) > _MOST_SHOWN:
        console.say(f"            and {len(package.left) - _MOST_SHOWN:,} more files (--json names all)")
    for variable in sorted(submission.variables):
        told = (
            "a secret, in the sight of whoever reaches the cluster" if variable in submission.secrets else ""
        )
        console.say(f"variable    {variable}{f': {told}' if told else ''}")
    for requirement in submission.requirements:
        console.say(f"pip         {requirement}")
    console.say(f"\n{package.run_file} as it travels:\n\n{package.text.strip()}")


def _summary(submission: Submission) -> str:
    package = submission.package
    return f"{console.many(len(package.sent) + 1, 'file')}, {console.size(package.bytes)}"


def _already(job: Job) -> str:
    done = "has succeeded" if job.status == "SUCCEEDED" else "is at work"
    return f"job {job.id}, the same run with the same files, {done}; --again would run it once more"


def _place(place: tuple[str | int, ...]) -> str:
    from softcask.pipeline.config.places import show_place

    return show_place(place)
