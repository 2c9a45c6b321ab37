"""`softcask submit`: through the job API of a real, if small, Ray cluster."""

from __future__ import annotations

import json
import os
import shlex
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
from tests.worlds import TESTS, objects_of
from typer.testing import Result

from softcask.jobs.submit import JobKind, entrypoint, environment
from softcask.pipeline.precompute.config import load_run

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


def submitted(cluster: str, project: Project, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "http://127.0.0.1:1"}
    command = [SCRIPT, "submit", "--address", cluster, "precompute", project.run, *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_submitted_job_ends_in_the_store_that_a_serial_run_makes(
    cluster: str, softcask: Softcask, project: Project
) -> None:
    done = submitted(cluster, project, "--set", "executor.kind=ray", "--set", "store.uri=remote")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new rows" in done.stdout and f"{project.folder}/remote" in done.stdout
    assert done.stderr.endswith(" succeeded\n")
    softcask("precompute", project.run)
    assert objects_of(project.folder / "remote") == objects_of(Path(project.store))
    (run,) = (project.folder / "remote" / "runs").glob("*/run.json")
    assert json.loads(run.read_text())["executor"] == "ray"


def test_a_job_that_fails_ends_as_it_did(cluster: str, project: Project) -> None:
    done = submitted(cluster, project, "--set", "transfer_set.inputs=gone.npy")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "gone.npy: no such file" in done.stdout
    assert "failed with exit code 2; its log says why" in done.stderr and "Traceback" not in done.stderr


def test_in_json_the_outcome_stands_alone_on_stdout(cluster: str, project: Project) -> None:
    done = submitted(cluster, project, "--json", "--set", "transfer_set.inputs=gone.npy")
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["exit_code"], answer["address"]) == ("FAILED", 2, cluster)
    assert answer["job"].startswith("raysubmit_")
    assert "gone.npy: no such file" in done.stderr


def test_without_waiting_only_the_jobs_name_is_told(cluster: str, project: Project) -> None:
    done = submitted(cluster, project, "--no-wait", "--set", "transfer_set.inputs=gone.npy")
    assert done.returncode == 0
    assert done.stdout.startswith("raysubmit_") and done.stdout.count("\n") == 1


def test_a_cluster_that_is_not_there_is_one_message(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:2")  # put back afterwards, whatever the command sets
    for address in ("http://127.0.0.1:1", "nowhere", "127.0.0.1:1"):
        refused = softcask("submit", "--address", address, "precompute", project.run)
        assert refused.exit_code == 2
        assert f"error: cannot reach Ray's job API at {address}: " in refused.stderr


def test_a_config_is_checked_before_anything_is_sent(softcask: Softcask, project: Project) -> None:
    project.edit("unit_rows = 32", "unit_row = 32")
    refused = softcask("submit", "--address", "http://127.0.0.1:1", "precompute", project.run)
    assert refused.exit_code == 2
    assert "run.toml:5: store.unit_row: unknown key" in refused.stderr


def test_the_job_runs_the_same_command_with_the_store_where_it_is_here(project: Project) -> None:
    settings = ["teachers[0].kwargs={seed = 1}"]
    line = entrypoint(JobKind.PRECOMPUTE, Path(project.run), load_run(project.run), settings)
    assert shlex.split(line) == [
        *("python", "-m", "softcask.jobs.cli", "precompute", "run.toml", "--set", "executor.address=auto"),
        *("--set", "teachers[0].kwargs={seed = 1}", "--set", f"store.uri={project.store}"),
    ]


def test_a_store_at_a_url_stays_where_it_is(project: Project) -> None:
    project.edit('uri = "cask"', 'uri = "s3://bucket/cask"')
    line = entrypoint(JobKind.PRECOMPUTE, Path(project.run), load_run(project.run), [])
    assert "store.uri" not in line and str(TESTS) not in line


def test_the_store_is_not_sent_along(project: Project) -> None:
    sent = environment(Path(project.run), load_run(project.run))
    assert sent["working_dir"] == str(project.folder) and "/cask" in sent["excludes"]
    elsewhere = load_run(project.run, {"store.uri": "/elsewhere/cask"})
    assert not any("elsewhere" in each for each in environment(Path(project.run), elsewhere)["excludes"])
