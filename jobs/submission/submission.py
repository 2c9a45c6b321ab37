"""One submission: all that a job is made of, put together here and not sent yet."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import softcask
from softcask.jobs.submission.cluster import Cluster, Job, JobLost
from softcask.jobs.submission.environment import requirements, secret_names, stated_variables
from softcask.jobs.submission.identity import attempts, checked_name, job_name, next_attempt
from softcask.jobs.submission.packing import Package, pack
from softcask.jobs.submission.store_reach import refuse_own_disk
from softcask.jobs.watching import PROGRESS
from softcask.pipeline.config.toml import parse_overrides
from softcask.storage_schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job before it is sent.

    Attributes:
        name: Its id on the cluster, but for the number of the attempt.
        content: The name that all that would run gives it, and its name where none is stated.
        command: What runs there, in the package's folder.
        package: What travels.
        variables: Environment variables that it gets.
        requirements: What pip installs for it on every node.
    """

    name: str
    content: str
    command: str
    package: Package
    variables: dict[str, str]
    requirements: tuple[str, ...]

    @property
    def secrets(self) -> list[str]:
        """Names of the variables that seem to hold a secret."""
        return secret_names(self.variables)

    def environment(self, folder: Path) -> dict[str, Any]:
        """Ray's `runtime_env`; the package is written into `folder`."""
        packed = folder / "package.zip"
        self.package.write(packed)
        environment: dict[str, Any] = {"working_dir": str(packed)}
        if self.variables:
            environment["env_vars"] = self.variables
        if self.requirements:
            environment["pip"] = list(self.requirements)
        return environment

    def metadata(self) -> dict[str, str]:
        """What is kept beside the job, for whoever lists jobs."""
        config = self.package.config
        return {
            "softcask": softcask.__version__,
            "content": self.content,
            "run": self.package.run_file,
            "store": config.store.uri,
            "teachers": ", ".join(teacher.name for teacher in config.teachers),
        }


def prepare(
    job: str,
    run: Path,
    *,
    settings: Sequence[str] = (),
    variables: Sequence[str] = (),
    packages: Sequence[str] = (),
    name: str | None = None,
) -> Submission:
    """Put a job together.

    Args:
        job: The command that is to run there.
        run: Its run file.
        settings: `--set` arguments.
        variables: `--env` arguments.
        packages: `--pip` arguments.
        name: Its id; None: what would run gives it one.

    Raises:
        ConfigError: Something of it is not valid, is not there, or cannot be sent.
    """
    package = pack(run, parse_overrides(settings))
    stated = stated_variables(variables, os.environ)
    wanted = requirements(packages)
    # The name is seen by all, and nothing of a secret is to be worked out from it.
    told = {key: "" if key in secret_names(stated) else value for key, value in stated.items()}
    # Not the `softcask` script: a cluster's PATH may lack the folder it was installed to.
    command = f"{PROGRESS}=json " + shlex.join(["python", "-m", "softcask.jobs.cli", job, package.run_file])
    content = job_name(job, package.digest(), told, wanted)
    return Submission(
        name=checked_name(name) if name else content,
        content=content,
        command=command,
        package=package,
        variables=stated,
        requirements=tuple(wanted),
    )


def send(submission: Submission, cluster: Cluster, *, again: bool = False) -> tuple[Job, bool]:
    """Start the job, unless it was started before and is at work or done; the job, and whether it is new.

    What failed or was cancelled is started again, as the next attempt.

    Args:
        submission: The job.
        cluster: Where it is to run.
        again: Start it whatever became of earlier attempts.

    Raises:
        ConfigError: A job of its name runs something else; or its store is on one node's own disk, and there
            are several nodes.
        JobLost: The cluster did not take it.
    """
    known = _known(submission, cluster)
    if known and not again and _is_enough(known[-1]):
        _refuse_another(submission, known[-1])
        return known[-1], False
    refuse_own_disk(submission.package.config, cluster.nodes())
    name = next_attempt(submission.name, [job.id for job in known])
    try:
        with tempfile.TemporaryDirectory() as folder:
            environment = submission.environment(Path(folder))
            cluster.submit(name, submission.command, environment, submission.metadata())
    except JobLost:
        # Another may have submitted the same in this moment, or the answer got lost on its way.
        standing = [job for job in _known(submission, cluster) if job.id == name]
        if not standing:
            raise
        return standing[0], False
    return cluster.job(name), True


def others_at_work(submission: Submission, cluster: Cluster, own: Job) -> list[str]:
    """Ids of other jobs that are at work on the same store."""
    store = submission.package.config.store.uri
    return [
        job.id
        for job in cluster.jobs()
        if not job.ended and job.id != own.id and job.metadata.get("store") == store
    ]


def _known(submission: Submission, cluster: Cluster) -> list[Job]:
    jobs = {job.id: job for job in cluster.jobs()}
    return [jobs[name] for name in attempts(submission.name, jobs)]


def _refuse_another(submission: Submission, job: Job) -> None:
    if job.metadata.get("content") != submission.content:
        raise ConfigError(
            f"job {job.id} stands on the cluster and is another run: its files or settings differ from those "
            f"here. Give this one another --id; or follow that one: softcask jobs attach {job.id}"
        )


def _is_enough(job: Job) -> bool:
    return not job.ended or job.status == "SUCCEEDED"
