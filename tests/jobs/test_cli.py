"""What holds for every command: help, version, quick start, how errors end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.jobs.conftest import Project
from tests.worlds import objects_of
from typer.testing import Result

from softcask.jobs import cli

Softcask = Callable[..., Result]
SCRIPT = str(Path(sys.executable).with_name("softcask"))
COMMANDS = (
    "plan",
    "precompute",
    "verify",
    "inspect",
    "diff",
    "repair",
    "drop",
    "gc",
    "migrate",
    "train",
    "sweep",
    "submit",
)


def test_the_help_names_every_command(softcask: Softcask) -> None:
    shown = softcask("--help")
    assert shown.exit_code == 0
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_shows_examples(softcask: Softcask, command: str) -> None:
    shown = softcask(command, "--help")
    assert shown.exit_code == 0
    assert "Examples:" in shown.stdout and f"softcask {command}" in shown.stdout


def test_the_version_is_the_packages(softcask: Softcask) -> None:
    shown = softcask("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"softcask {version('softcask')}\n")


def test_the_command_starts_without_what_takes_long_to_import() -> None:
    code = "import json, sys, softcask.jobs.cli; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "softcask.jobs.precompute" in loaded
    heavy = {"ray", "torch", "zarr", "numpy", "pyarrow", "pandas", "fsspec"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)


def test_a_wrong_option_is_a_usage_error(softcask: Softcask, project: Project) -> None:
    refused = softcask("plan", project.run, "--jsn")
    assert refused.exit_code == 2
    assert "No such option: --jsn" in refused.stderr


def test_a_fault_of_softcask_keeps_its_traceback(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object, **_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("softcask.pipeline.precompute.planning.plan", broken)
    ended = softcask("plan", project.run)
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ZeroDivisionError)


def test_a_refusal_of_the_system_is_one_message(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(config: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("softcask.pipeline.precompute.planning.plan", refused)
    ended = softcask("plan", project.run)
    assert ended.exit_code == 2
    assert ended.stderr == "error: the system refused: [Errno 13] Permission denied: '/somewhere'\n"


def test_a_missing_extra_is_named(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = softcask("submit", "--address", "http://127.0.0.1:1", "precompute", project.run)
    assert ended.exit_code == 2
    assert "pip install 'softcask[engine]'" in ended.stderr


def test_on_request_an_error_shows_where_it_comes_from(
    softcask: Softcask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTCASK_TRACEBACK", "1")
    ended = softcask("plan", str(tmp_path / "none.toml"))
    assert type(ended.exception).__name__ == "ConfigError"


def test_main_is_what_the_script_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["softcask", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("softcask ")


def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(project: Project) -> None:
    slow = ["--set", "teachers[0].factory=toy_models:slow", "--set", "teachers[0].kwargs={seconds = 0.15}"]
    command = [SCRIPT, "precompute", project.run, *slow]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        commits = Path(project.store, "teachers/a/commits")
        while process.poll() is None and not any(commits.glob("*.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "error: interrupted; what is committed is safe; run the same command to go on\n"
    committed = {key: data for key, data in objects_of(Path(project.store)).items() if "/commits/" in key}
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    summary = json.loads(again.stdout)["teachers"]["a"]
    assert 0 < summary["new_rows"] < summary["rows"] == 230
    assert committed.items() <= objects_of(Path(project.store)).items()


def test_on_a_terminal_the_way_there_is_shown_with_rates(project: Project) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [SCRIPT, "precompute", project.run], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        answer, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert b"index" in shown and b"label" in shown and b"460/460" in shown and b"rows/s" in shown
    assert b"new rows" in answer and b"rows/s" not in answer


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""
