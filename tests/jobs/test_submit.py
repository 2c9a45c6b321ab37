"""`softcask submit`: through the job API of a real, if small, Ray cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.jobs.conftest import Project
from tests.jobs.test_cli import SCRIPT
from tests.toy_models import GATE
from tests.worlds import TESTS, objects_of
from typer.testing import Result

Softcask = Callable[..., Result]


def free_ports(count: int) -> list[int]:
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in with_ports]
    for each in with_ports:
        each.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """URL of the job API of a cluster of this machine alone, in a process group of its own."""
    gcs, dashboard, agent = free_ports(3)
    folder = tempfile.mkdtemp(prefix="ray")  # its sockets want a short path
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [f"{bin_folder}/ray", "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # The agent that takes jobs has one port for all clusters of a machine, unless it is given its own.
    command += [f"--dashboard-agent-listen-port={agent}"]
    command += [f"--object-store-memory={80 << 20}", f"--temp-dir={folder}"]
    url = f"http://127.0.0.1:{dashboard}"
    log = Path(folder, "start.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(f"{url}/api/version", process, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    pytest.fail(f"{url} did not come up: {log.read_text()}")


@pytest.fixture(autouse=True)
def other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in the environment that must not count; put back afterwards, whatever the command sets."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:2")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")


@pytest.fixture
def project(project: Project) -> Project:
    """One with its teachers' code beside the run file, which the cluster gets from there and nowhere else."""
    shutil.copy(TESTS / "toy_models.py", project.folder / "own_models.py")
    text = Path(project.run).read_text().replace(f'"{TESTS}"', '"."').replace("toy_models:", "own_models:")
    Path(project.run).write_text(text)
    return project


def test_a_job_ends_as_it_did_and_is_tried_again_when_it_is_submitted_again(
    cluster: str, softcask: Softcask, project: Project
) -> None:
    gone = ("--address", cluster, "--set", "transfer_set.inputs=/gone/gone.npy")
    done = softcask("submit", "precompute", project.run, "--json", *gone)
    assert done.exit_code == 2, done.stdout + done.stderr
    answer = json.loads(done.stdout)  # the outcome stands alone on stdout
    assert (answer["status"], answer["exit_code"], answer["address"]) == ("FAILED", 2, cluster)
    assert "gone.npy: no such file" in done.stderr and "Traceback" not in done.stderr
    assert "failed with exit code 2; its log says why" in done.stderr
    again = softcask("submit", "precompute", project.run, "--no-wait", *gone)
    assert (again.exit_code, again.stdout) == (0, f"{answer['job']}.2\n")
    attached = softcask("jobs", "attach", f"{answer['job']}.2", "--address", cluster)
    assert attached.exit_code == 2 and "gone.npy: no such file" in attached.stdout
    told = json.loads(softcask("jobs", "list", "--json", "--address", cluster).stdout)["jobs"]
    (listed,) = [job for job in told if job["job"] == answer["job"]]
    assert (listed["status"], listed["exit_code"]) == ("FAILED", 2)
    assert listed["metadata"]["store"] == project.store


@pytest.mark.long
@pytest.mark.timeout(400)  # three clients, two drivers and two workers are started, one after the other
def test_a_job_that_is_left_alone_and_cancelled_half_way_goes_on_when_it_is_submitted_again(
    cluster: str, softcask: Softcask, project: Project
) -> None:
    gate = project.folder / ".gate"  # hidden, so that it does not travel
    os.mkfifo(gate)
    held = ["--set", "teachers[0].factory=own_models:held", "--set", "teachers[0].kwargs={row = 65}"]
    on_ray = ["--set", "executor.kind=ray", "--set", "executor.workers=1", "--env", f"{GATE}={gate}"]
    submit = ["submit", "precompute", project.run, "--address", cluster, *held, *on_ray]
    with subprocess.Popen([SCRIPT, *submit], stderr=subprocess.PIPE, text=True) as process:
        commits = Path(project.store, "teachers/a/commits")
        while process.poll() is None and not any(commits.glob("*.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "the job goes on" in told
    name = told.split()[1]
    second = softcask(*submit, "--no-wait")  # while it is at work: not run twice
    assert (second.exit_code, second.stdout) == (0, f"{name}\n")
    assert "is at work" in second.stderr
    cancelled = softcask("jobs", "cancel", name, "--address", cluster)
    assert cancelled.exit_code == 0 and f"job {name} was cancelled" in cancelled.stdout
    attached = softcask("jobs", "attach", name, "--address", cluster)
    assert attached.exit_code == 143 and "what it committed is safe" in attached.stderr
    half = {key: data for key, data in objects_of(Path(project.store)).items() if "/commits/" in key}
    gate.unlink()
    gate.write_text("open")
    done = softcask(*submit)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert done.stderr.endswith(f"job {name}.2 succeeded\n")
    assert "new rows" in done.stdout and project.store in done.stdout
    told = [json.loads(path.read_text()) for path in Path(project.store, "runs").glob("*/run.json")]
    assert {run["executor"] for run in told} == {"ray"}
    softcask("precompute", project.run, *held, "--set", "store.uri=undisturbed")
    whole = objects_of(Path(project.store))
    assert whole == objects_of(project.folder / "undisturbed")
    assert half and half.items() < whole.items()
    late = softcask("jobs", "cancel", f"{name}.2", "--address", cluster)
    assert late.exit_code == 0 and "had ended before: SUCCEEDED" in late.stdout


def test_a_job_that_the_cluster_does_not_know_is_one_message(cluster: str, softcask: Softcask) -> None:
    for command in ("attach", "logs", "cancel"):
        refused = softcask("jobs", command, "none", "--address", cluster)
        assert refused.exit_code == 2 and "Job none does not exist" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_cluster_that_is_not_there_is_one_message(softcask: Softcask, project: Project) -> None:
    for address in ("http://127.0.0.1:1", "nowhere", "127.0.0.1:1"):
        for command in (["submit", "precompute", project.run], ["jobs", "list"]):
            refused = softcask(*command, "--address", address)
            assert refused.exit_code == 2
            assert f"error: cannot reach Ray's job API at {address}: " in refused.stderr


def test_without_an_address_it_says_how_to_give_one(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    refused = softcask("submit", "precompute", project.run)
    assert refused.exit_code == 2
    assert "no cluster is named: give --address" in refused.stderr


def test_a_config_is_checked_before_anything_is_sent(softcask: Softcask, project: Project) -> None:
    project.edit("unit_rows = 32", "unit_row = 32")
    refused = softcask("submit", "--address", "http://127.0.0.1:1", "precompute", project.run)
    assert refused.exit_code == 2
    assert "run.toml:5: store.unit_row: unknown key" in refused.stderr


def test_what_would_travel_is_shown_and_no_cluster_is_asked(softcask: Softcask, project: Project) -> None:
    shown = softcask("submit", "precompute", project.run, "--dry-run", "--env", "A=1", "--pip", "timm==1.0")
    assert shown.exit_code == 0
    for expected in ("inputs.npy", f"store       {project.store}", "variable    A", "pip         timm==1.0"):
        assert expected in shown.stdout
    answer = json.loads(softcask("submit", "precompute", project.run, "--dry-run", "--json").stdout)
    assert answer["files"]["inputs.npy"] == (project.folder / "inputs.npy").stat().st_size
    assert answer["job"].startswith("softcask-precompute-")
