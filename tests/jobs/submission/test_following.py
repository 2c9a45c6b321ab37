"""A job is followed through lost connections, and ends here as it ended there."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.jobs.submission.fake_cluster import FAILED, RUNNING, STOPPED, SUCCEEDED, FakeCluster

from softcask.jobs.progress import Bars
from softcask.jobs.submission import following
from softcask.jobs.submission.cluster import Cluster, Job, JobLost, JobUnknown
from softcask.jobs.submission.following import Log, exit_code, follow, progress_in, tell_end


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_BETWEEN_LOOKS", 0.0)


def followed(cluster: FakeCluster, **options: Any) -> tuple[str, Job]:
    out = io.StringIO()
    job = follow(cast(Cluster, cluster), "a", out, **options)
    return out.getvalue(), job


def test_a_log_that_is_cut_off_goes_on_where_it_was() -> None:
    lost = JobLost("gone")
    cluster = FakeCluster(
        logs=[["one\ntw", "o\nth", lost], [lost], ["one\n", "two\nthree\nfour\n", "fi"]],
        answers=[SUCCEEDED],
    )
    assert followed(cluster) == ("one\ntwo\nthree\nfour\nfi\n", SUCCEEDED)


def test_a_log_that_ends_before_its_job_is_asked_for_again() -> None:
    cluster = FakeCluster(logs=[["one\n"], ["one\ntwo\n"]], answers=[RUNNING, FAILED])
    assert followed(cluster) == ("one\ntwo\n", FAILED)


def test_a_quiet_job_is_looked_after_and_a_cluster_that_is_gone_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "_QUIET_SECONDS", 0.0)
    cluster = FakeCluster(logs=[["one\n"], []], answers=[RUNNING, SUCCEEDED])
    assert followed(cluster)[1] == SUCCEEDED
    gone = FakeCluster(logs=[["one\n"]], answers=[JobLost("http://fake:8265 did not answer")])
    with pytest.raises(JobLost, match="did not answer"):
        followed(gone, patience=0.0)


def test_a_cluster_that_came_back_without_the_job_is_not_waited_for() -> None:
    forgotten = FakeCluster(logs=[[JobLost("gone")]], answers=[JobUnknown("Job a does not exist")])
    with pytest.raises(JobUnknown):
        followed(forgotten)


def test_lines_that_tell_progress_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with Bars() as bars:
        log = Log(out, bars)
        log.take('{"stage": "label", "done": 5, "total": 10}\nstarting\n{"stage": "lab')
        log.take('el", "done": 6, "total": null, "rows_per_second": 1.5}\n{"not": "progress"}\n{brace\n')
        log.end()
    assert out.getvalue() == 'starting\n{"not": "progress"}\n{brace\n'
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1]",
        "{}",
        '{"stage": 1, "done": 1}',
        '{"stage": "a", "done": true}',
        '{"stage": "a", "done": 1, "total": "x"}',
    ],
)
def test_whatever_else_a_line_holds_is_no_progress(line: str) -> None:
    assert progress_in(line) is None


@pytest.mark.parametrize(
    ("job", "code", "told"),
    [
        (SUCCEEDED, 0, "job a succeeded"),
        (STOPPED, 143, "job a was cancelled; what it committed is safe"),
        (FAILED, 2, "job a failed with exit code 2; its log says why"),
        (replace(FAILED, exit_code=130), 130, "failed with exit code 130"),
        (replace(FAILED, exit_code=-9), 137, "failed with exit code 137"),
        (
            replace(FAILED, exit_code=None, message="The actor died unexpectedly.\nMore."),
            3,
            "job a was lost: The actor died unexpectedly. What it committed is safe",
        ),
        (
            replace(FAILED, exit_code=1, message="python: No module named softcask"),
            1,
            "the cluster at http://fake:8265 has no softcask",
        ),
    ],
)
def test_a_command_that_waits_ends_as_the_job_did(
    job: Job, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(job) == code
    tell_end(job, "http://fake:8265")
    assert told in capsys.readouterr().err
