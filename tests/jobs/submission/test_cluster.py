"""Every failure of a job API is one message that says what to do and shows no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from softcask.jobs.submission.cluster import Cluster, JobLost, JobUnknown
from softcask.storage_schemas.errors import ConfigError, ExecutorError

TOKEN = "hunter2-hunter2-hunter2"


class Api:
    """A server on this machine that answers what it is told to.

    Attributes:
        answers: By path; status and body. Whatever else is asked for gets a 404.
        headers: Of the last request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {"/api/version": (200, {"ray_version": "2.60.0"})}
        self.headers: dict[str, str] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.headers = dict(self.headers)
                status, body = api.answers.get(self.path, (404, "no such page"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:2")  # put back afterwards; they must not count
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RAY_JOB_HEADERS", raising=False)
    served = Api()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def details(**changes: Any) -> dict[str, Any]:
    return {
        "type": "SUBMISSION",
        "submission_id": "a",
        "status": "FAILED",
        "entrypoint": "python",
        "start_time": 2000,
        **changes,
    }


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, "Unauthorized: Missing authentication token", "asks for a token, and none was found"),
        (403, "Forbidden: Invalid authentication token", "does not take the token that it was given"),
        (404, "nothing", "what answers there is no dashboard of Ray"),
        (200, "<html>", "cannot reach Ray's job API"),
        (200, {"ray_version": "1.5.0"}, "Ray version 1.5.0 is running on the cluster"),
    ],
)
def test_what_is_no_cluster_for_us_is_refused_with_the_reason(
    api: Api, status: int, body: Any, told: str
) -> None:
    api.answers["/api/version"] = status, body
    with pytest.raises(ExecutorError, match=told) as raised:
        Cluster(api.address)
    assert api.address in str(raised.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("host:8265", "expected http:// or https://"),
        ("http://", "names no host"),
        ("http://[::1", "is no URL"),
        ("http://host:99999", "is no URL"),
    ],
)
def test_what_is_no_address_is_refused_before_anyone_is_asked(address: str, told: str) -> None:
    with pytest.raises(ExecutorError, match=told):
        Cluster(address)


def test_a_password_in_an_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="with a password in it.*RAY_JOB_HEADERS") as raised:
        Cluster(f"http://me:{TOKEN}@host:8265")
    assert TOKEN not in str(raised.value)


def test_headers_from_the_environment_are_passed_on_and_not_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", json.dumps({"Authorization": f"Bearer {TOKEN}"}))
    cluster = Cluster(api.address)
    assert api.headers["Authorization"] == f"Bearer {TOKEN}"
    with pytest.raises(JobLost) as raised:
        cluster.jobs()
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("stated", [f"Bearer {TOKEN}", f'["{TOKEN}"]', f'{{"{TOKEN}": 3}}'])
def test_headers_that_are_none_are_refused_without_showing_them(
    api: Api, monkeypatch: pytest.MonkeyPatch, stated: str
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", stated)
    with pytest.raises(ConfigError, match="RAY_JOB_HEADERS: expected a JSON object") as raised:
        Cluster(api.address)
    assert TOKEN not in str(raised.value)


def test_jobs_are_told_oldest_first_and_drivers_that_nobody_submitted_are_left_out(api: Api) -> None:
    api.answers["/api/jobs/"] = (
        200,
        [details(), details(submission_id="b", start_time=1000), details(submission_id=None, job_id="01")],
    )
    assert [job.id for job in Cluster(api.address).jobs()] == ["b", "a"]


def test_an_exit_code_is_taken_from_what_an_older_ray_says_too(api: Api) -> None:
    cluster = Cluster(api.address)
    for answer, code in (
        (details(driver_exit_code=2, message="failed with exit code 7"), 2),
        (details(message="Job entrypoint command failed with exit code 7, last available logs"), 7),
        (details(message="Job entrypoint command failed with exit code -9. No logs available."), -9),
        (details(message="The actor died."), None),
    ):
        api.answers["/api/jobs/a"] = 200, answer
        assert cluster.job("a").exit_code == code


def test_a_job_that_is_not_known_is_told_from_a_cluster_that_fails(api: Api) -> None:
    cluster = Cluster(api.address)
    api.answers["/api/jobs/a"] = 404, "Job a does not exist"
    with pytest.raises(JobUnknown, match="Job a does not exist"):
        cluster.job("a")
    api.answers["/api/jobs/a"] = 500, "Traceback (most recent call last):\n  File\nTimeoutError: no agent."
    with pytest.raises(JobLost, match="did not say how job a stands: TimeoutError: no agent$") as raised:
        cluster.job("a")
    assert not isinstance(raised.value, JobUnknown)
