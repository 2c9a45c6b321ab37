"""What is sent, and what is not sent twice."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.jobs.conftest import Project
from tests.jobs.submission.fake_cluster import FAILED, RUNNING, STOPPED, SUCCEEDED, FakeCluster

from softcask.jobs.submission.cluster import Cluster, Job, JobLost
from softcask.jobs.submission.submission import Submission, prepare, send
from softcask.storage_schemas.errors import ConfigError


@pytest.fixture
def submission(project: Project, monkeypatch: pytest.MonkeyPatch) -> Submission:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    return prepare(
        "precompute", Path(project.run), name="a", variables=["HF_TOKEN", "A=1"], packages=["timm==1.0"]
    )


def sent(submission: Submission, cluster: FakeCluster, **options: Any) -> tuple[str, bool]:
    job, is_new = send(submission, cast(Cluster, cluster), **options)
    return job.id, is_new


def test_a_job_is_its_command_its_package_and_what_was_asked_for(
    submission: Submission, tmp_path: Path
) -> None:
    cluster = FakeCluster()
    assert sent(submission, cluster) == ("a", True)
    ((name, command, environment, metadata),) = cluster.submitted
    assert (name, command) == ("a", "SOFTCASK_PROGRESS=json python -m softcask.jobs.cli precompute run.toml")
    assert environment["env_vars"] == {"HF_TOKEN": "hunter2", "A": "1"}
    assert environment["pip"] == ["timm==1.0"]
    assert metadata["teachers"] == "a, b" and "hunter2" not in json.dumps(metadata)
    packed = submission.environment(tmp_path)["working_dir"]
    assert {"run.toml", "inputs.npy", "labels.npy"} <= set(zipfile.ZipFile(packed).namelist())


def test_nothing_but_the_package_is_sent_where_nothing_is_asked_for(project: Project, tmp_path: Path) -> None:
    plain = prepare("precompute", Path(project.run))
    assert list(plain.environment(tmp_path)) == ["working_dir"]


def test_a_secret_is_not_in_a_jobs_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for value in ("hunter2", "hunter3"):
        monkeypatch.setenv("HF_TOKEN", value)
        names.add(prepare("precompute", Path(project.run), variables=["HF_TOKEN"]).name)
    assert len(names) == 1
    assert prepare("precompute", Path(project.run)).name not in names


@pytest.mark.parametrize(
    ("standing", "again", "expected"),
    [
        ([RUNNING], False, ("a", False)),
        ([SUCCEEDED], False, ("a", False)),
        ([FAILED], False, ("a.2", True)),
        ([STOPPED, replace(RUNNING, id="a.2")], False, ("a.2", False)),
        ([STOPPED, replace(FAILED, id="a.2")], False, ("a.3", True)),
        ([SUCCEEDED], True, ("a.2", True)),
        ([RUNNING], True, ("a.2", True)),
        ([replace(RUNNING, id="b")], False, ("a", True)),
    ],
)
def test_what_is_at_work_or_done_is_not_run_twice_unless_asked(
    submission: Submission, standing: list[Job], again: bool, expected: tuple[str, bool]
) -> None:
    same = {"content": submission.content}
    cluster = FakeCluster(standing=[replace(job, metadata=same) for job in standing])
    assert sent(submission, cluster, again=again) == expected
    assert len(cluster.submitted) == expected[1]


def test_a_name_that_another_run_has_is_refused(submission: Submission) -> None:
    other = replace(RUNNING, metadata={"content": "softcask-precompute-0123456789ab"})
    with pytest.raises(ConfigError, match="job a .* is another run.*softcask jobs attach a"):
        sent(submission, FakeCluster(standing=[other]))
    assert sent(submission, FakeCluster(standing=[other]), again=True) == ("a.2", True)


def test_of_two_that_submit_at_once_both_follow_one_job(submission: Submission) -> None:
    taken = FakeCluster(refusal=JobLost("a already exists"), meanwhile=[RUNNING])
    assert sent(submission, taken) == ("a", False)


def test_a_cluster_that_does_not_take_the_job_says_why(submission: Submission) -> None:
    with pytest.raises(JobLost, match="no room"):
        sent(submission, FakeCluster(refusal=JobLost("no room")))


def test_a_store_on_a_disk_of_one_node_is_refused_where_there_are_several(
    project: Project, submission: Submission
) -> None:
    cluster = FakeCluster(alive=3)
    with pytest.raises(
        ConfigError, match="3 nodes, each with a disk of its own.*s3://.*executor.shared_paths"
    ):
        sent(submission, cluster)
    assert cluster.submitted == []
    shared = f'executor.shared_paths=["{project.folder}"]'
    for setting in ("store.uri=s3://bucket/cask", shared):
        assert sent(prepare("precompute", Path(project.run), settings=[setting]), FakeCluster(alive=3))[1]
    by_url = prepare("precompute", Path(project.run), settings=[f"store.uri=file://{project.folder}/cask"])
    with pytest.raises(ConfigError, match="3 nodes"):
        sent(by_url, FakeCluster(alive=3))
