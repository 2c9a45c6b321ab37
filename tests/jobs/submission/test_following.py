"""A job is followed through lost connections, and ends here as it ended there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.jobs.submission.fake_cluster import FAILED, RUNNING, STOPPED, SUCCEEDED, FakeCluster
from tests.worlds import run_config, write_rows

from softcask.jobs.progress import Bars
from softcask.jobs.submission import following
from softcask.jobs.submission.cluster import Cluster, Job, JobLost, JobUnknown
from softcask.jobs.submission.following import Log, exit_code, follow, progress_in, tell_end
from softcask.jobs.watching import PROGRESS, watching
from softcask.pipeline.precompute.driver import precompute


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


LINE = {"event": "progress", "stage": "label", "done": 5, "total": 10}


def test_lines_that_tell_progress_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    told = json.dumps(LINE)
    with Bars() as bars:
        log = Log(out, bars)
        log.take(f"{told}\nstarting\n{told[:9]}")
        log.take(f'{told[9:]}\n{{"event": "another"}}\n{{brace\n')
        log.end()
    assert out.getvalue() == 'starting\n{"event": "another"}\n{brace\n'
    assert capsys.readouterr().out == ""


def test_what_a_run_writes_for_programs_is_what_is_read_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRESS, "json")
    with watching(as_json=False) as watch:
        precompute(run_config(write_rows(tmp_path)), watch=watch)
    told = [progress_in(line) for line in capsys.readouterr().err.splitlines()]
    last = told[-1]
    assert None not in told and last is not None
    assert (last.stage, last.done, last.total) == ("label", 460, 460)
    assert last.live is not None and last.live.rows == {"a": 230, "b": 230}


def test_a_line_of_another_version_is_shown_as_far_as_it_is_understood() -> None:
    progress = progress_in(json.dumps(LINE | {"run": 3, "mood": "good"}))
    assert progress is not None
    assert (progress.stage, progress.done, progress.total, progress.live) == ("label", 5, 10, None)


@pytest.mark.parametrize(
    "changes",
    [{"stage": 1}, {"done": True}, {"total": None}, {"event": "end"}, {"done": "5"}, {"stage": None}],
)
def test_whatever_else_a_line_holds_is_no_progress(changes: dict[str, Any]) -> None:
    assert progress_in(json.dumps(LINE)) is not None
    assert progress_in(json.dumps(LINE | changes)) is None
    assert progress_in("{") is None and progress_in("[1]") is None


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
