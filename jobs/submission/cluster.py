"""A Ray cluster as its job API shows it: one address, every failure one message that says what to do.

The API runs whatever it is sent. Where it asks for a token, Ray finds that by itself (`RAY_AUTH_MODE=token`
with `RAY_AUTH_TOKEN` or a token file); other headers come from `RAY_JOB_HEADERS`, as for `ray job`. Neither
is shown.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from softcask.pipeline.config.credentials import holds_password
from softcask.storage_schemas.errors import ConfigError, ExecutorError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 300.0
_BETWEEN_LOOKS = 0.5
_STATUS = re.compile(r"^Request failed with status code \d+: ")
_EXIT_CODE = re.compile(r"failed with exit code (-?\d+)")


class JobLost(ExecutorError):
    """The cluster, or a job on it, is gone: how the job ended is not known."""


class JobUnknown(JobLost):
    """The cluster answers, and knows no such job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a cluster knows of a job.

    Attributes:
        id: Its submission id.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        ended: Whether that is for good.
        exit_code: Of its command, where that ended by itself.
        message: What Ray says about the status.
        metadata: What it was submitted with.
        began: Unix time in seconds.
        finished: The same; None while it runs.
    """

    id: str
    status: str
    ended: bool
    exit_code: int | None
    message: str
    metadata: Mapping[str, str]
    began: float | None
    finished: float | None


class Cluster:
    """The job API of one cluster.

    Attributes:
        address: Its URL.
    """

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: URL of the cluster's dashboard.

        Raises:
            ExecutorError: There is no job API at this address, or it does not let us in.
        """
        self.address = _checked(address)
        # Ray lets these two overrule the address that it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        os.environ.pop("RAY_ADDRESS", None)
        client, headers = _client_class(), _stated_headers()
        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.WARNING)
        from ray.exceptions import AuthenticationError

        try:
            self._client = client(self.address, headers=headers)
        except AuthenticationError as error:
            raise self._locked(error) from error
        except (ConnectionError, RuntimeError, ValueError, KeyError, OSError) as error:
            raise _unreachable(self.address, _reason(error)) from error

    def jobs(self) -> list[Job]:
        """The jobs that were submitted to it, those too that have ended, oldest first."""
        with self._explained("list its jobs"):
            found = [each for each in self._client.list_jobs() if each.submission_id]
        return sorted(map(_job, found), key=lambda job: job.began or 0.0)

    def job(self, name: str) -> Job:
        """One of them.

        Raises:
            JobLost: It knows no such job, or does not answer.
        """
        with self._explained(f"say how job {name} stands"):
            return _job(self._client.get_job_info(name))

    def submit(self, name: str, command: str, environment: dict[str, Any], metadata: dict[str, str]) -> None:
        """Start a job.

        Args:
            name: Its id, never used before on this cluster.
            command: A shell command.
            environment: Ray's `runtime_env`; a local package in it is uploaded.
            metadata: What to keep beside it.

        Raises:
            JobLost: It did not take the job; the message says why.
        """
        with self._explained("take the job"):
            self._client.submit_job(
                entrypoint=command, submission_id=name, runtime_env=environment, metadata=metadata
            )

    def cancel(self, name: str) -> bool:
        """Ask a job to end; False where it has already ended."""
        with self._explained(f"cancel job {name}"):
            return bool(self._client.stop_job(name))

    def wait(self, name: str) -> Job:
        """A job once it has ended."""
        while not (job := self.job(name)).ended:
            time.sleep(_BETWEEN_LOOKS)
        return job

    def log(self, name: str) -> str:
        """All that a job has printed so far."""
        with self._explained(f"give the log of job {name}"):
            return str(self._client.get_job_logs(name))

    async def follow_log(self, name: str) -> AsyncIterator[str]:
        """What a job has printed, from its beginning, and what it prints, in pieces, until it ends."""
        import aiohttp

        with self._explained(f"give the log of job {name}"):
            try:
                async for piece in self._client.tail_job_logs(name):
                    yield piece
            except aiohttp.ClientError as error:
                raise ConnectionError(str(error)) from error

    def nodes(self) -> int:
        """How many nodes are alive."""
        from ray.util.state import StateApiClient
        from ray.util.state.common import ListApiOptions, StateResource

        with self._explained("list its nodes"):
            client = StateApiClient(self.address, headers=_stated_headers())
            alive = ListApiOptions(filters=[("state", "=", "ALIVE")])
            return len(client.list(StateResource.NODES, alive, raise_on_missing_output=False))

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        from ray.exceptions import RayError

        try:
            yield
        except (RayError, RuntimeError, ValueError, OSError) as error:
            reason = _reason(error)
            lost = JobUnknown if reason.endswith("does not exist") else JobLost
            raise lost(f"{self.address} did not {task}: {reason}") from error

    def _locked(self, error: Exception) -> ExecutorError:
        wrong = "invalid" in str(error).lower()
        found = (
            "does not take the token that it was given" if wrong else "asks for a token, and none was found"
        )
        return ExecutorError(
            f"{self.address} {found}. Set RAY_AUTH_MODE=token, and give the cluster's own token in "
            "RAY_AUTH_TOKEN or in ~/.ray/auth_token; or, for a proxy before it, headers in RAY_JOB_HEADERS."
        )


def _checked(address: str) -> str:
    if holds_password(address):
        raise ConfigError(
            "--address: a URL with a password in it, which command lines and logs show. Give the address "
            "alone, and what a proxy asks for as headers in RAY_JOB_HEADERS"
        )
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise _unreachable(address, f"it is no URL ({error})") from error
    if parts.scheme not in ("http", "https"):
        # Ray would take it for another of its ports, and wait half a minute for an answer.
        raise _unreachable(address, "expected http:// or https:// before it")
    if not usable:
        raise _unreachable(address, "it names no host")
    return address.rstrip("/")


def _unreachable(address: str, reason: str) -> ExecutorError:
    if "returned 404" in reason:
        reason = "what answers there is no dashboard of Ray"
    return ExecutorError(
        f"cannot reach Ray's job API at {address}: {reason}. Give the address of a running cluster's "
        "dashboard, such as http://HOST:8265."
    )


def _client_class() -> type[JobSubmissionClient]:
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's own, that waits for no answer for ever."""

        def _do_request(self, *args: Any, **kwargs: Any) -> Any:
            limits = {"timeout": (_CONNECT_SECONDS, _ANSWER_SECONDS)}
            return super()._do_request(*args, **{**limits, **kwargs})

    return Client


def _stated_headers() -> dict[str, str] | None:
    stated = os.environ.get("RAY_JOB_HEADERS")
    if not stated:
        return None
    try:
        headers = json.loads(stated)
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ConfigError(
            'RAY_JOB_HEADERS: expected a JSON object of strings, such as {"Authorization": "..."}; what it '
            "holds "
            "is not shown here"
        )
    return headers


def _reason(error: Exception) -> str:
    """What Ray says, without the traceback of its server and without a full stop."""
    lines = [line for line in _STATUS.sub("", str(error).strip()).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1].strip().rstrip(".")
    return " ".join(line.strip() for line in lines).rstrip(".") or type(error).__name__


def _job(found: JobDetails) -> Job:
    code = found.driver_exit_code
    if code is None and (told := _EXIT_CODE.search(found.message or "")):  # of an older Ray
        code = int(told[1])
    return Job(
        id=found.submission_id or "",
        status=str(found.status.value),
        ended=found.status.is_terminal(),
        exit_code=code,
        message=found.message or "",
        metadata=found.metadata or {},
        began=found.start_time / 1000 if found.start_time else None,
        finished=found.end_time / 1000 if found.end_time else None,
    )
