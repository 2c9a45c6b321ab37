"""Drivers that are killed, and drivers that meet: the store ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.worlds import identities_of, objects_of, sections, teacher, write_rows

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute

DRIVER = """
import json, sys
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
print(precompute(RunConfig.model_validate(json.loads(sys.argv[1]))).tasks)
"""
UNITS = 8


def job(folder: Path, cask: str, kind: str) -> dict[str, Any]:
    slow = teacher("a", factory="toy_models:slow", kwargs={"seconds": 0.05})
    store = {"uri": str(folder / cask), "unit_rows": 32}
    return sections(folder, slow, store=store, executor={"kind": kind, "workers": 1})


def start(config: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, json.dumps(config)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"}, **pipes)


def wait_for_commits(store: Path, count: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while len(list(store.glob("teachers/*/commits/*.json"))) < count:
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline, "no unit was committed in time"
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=0.05)


def kill_with_all_it_started(driver: subprocess.Popen[str]) -> None:
    """SIGKILL to the driver first; then to what is left of its cluster, so that nothing outlives the test."""
    started = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(started, timeout=30)


@pytest.mark.parametrize("kind", ["serial", "ray"])
def test_a_killed_driver_goes_on_where_it_stopped(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path)
    precompute(RunConfig.model_validate(job(tmp_path, "undisturbed", "serial")))
    driver = start(job(tmp_path, "killed", kind))
    wait_for_commits(tmp_path / "killed", 2, driver)
    kill_with_all_it_started(driver)
    standing = identities_of(tmp_path / "killed")
    committed = len(list((tmp_path / "killed").glob("teachers/a/commits/*.json")))
    assert 2 <= committed < UNITS

    resumed = start(job(tmp_path, "killed", kind))
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert int(output.split()[-1]) == UNITS - committed
    assert objects_of(tmp_path / "killed") == objects_of(tmp_path / "undisturbed")
    after = identities_of(tmp_path / "killed")
    assert {key: after[key] for key in standing} == standing


def test_two_jobs_on_one_store_at_once_both_end_well(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(RunConfig.model_validate(job(tmp_path, "undisturbed", "serial")))
    drivers = [start(job(tmp_path, "shared", "serial")) for _ in range(2)]
    for driver in drivers:
        _, errors = driver.communicate(timeout=120)
        assert driver.returncode == 0, errors
    assert objects_of(tmp_path / "shared") == objects_of(tmp_path / "undisturbed")
