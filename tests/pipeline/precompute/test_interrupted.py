"""Drivers that are killed, and drivers that meet: the store ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.toy_models import GATE
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
HELD_UNIT = 5
LONG = 120  # seconds, only ever waited for when something hangs


def job(folder: Path, cask: str, kind: str = "serial", row: int = HELD_UNIT * 32) -> dict[str, Any]:
    held = teacher("a", factory="toy_models:held", kwargs={"row": row})
    store = {"uri": str(folder / cask), "unit_rows": 32}
    return sections(folder, held, store=store, executor={"kind": kind, "workers": 1})


_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_outlives_a_test() -> Iterator[None]:
    yield
    while _STARTED:
        driver = _STARTED.pop()
        if driver.poll() is None:
            kill_with_all_it_started(driver)


def start(config: dict[str, Any], gate: Path | None = None) -> subprocess.Popen[str]:
    """A driver in a process of its own; its teacher waits at the gate, if there is one."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    if gate is not None:
        os.mkfifo(gate)
        environment[GATE] = str(gate)
    command = [sys.executable, "-c", DRIVER, json.dumps(config)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    _STARTED.append(subprocess.Popen(command, text=True, env=environment, **pipes))
    return _STARTED[-1]


@contextlib.contextmanager
def held_at(gate: Path, driver: subprocess.Popen[str]) -> Iterator[None]:
    """From when the driver's teacher has come to the gate, which opens at the end."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            hold = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)  # refused until somebody reads
            break
        except OSError as error:
            assert error.errno == errno.ENXIO
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline, "the teacher did not come to its gate"
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=0.05)
    try:
        yield
    finally:
        os.close(hold)


def committed_units(store: Path) -> int:
    return len(list(store.glob("teachers/a/commits/*.json")))


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
    precompute(RunConfig.model_validate(job(tmp_path, "undisturbed")))
    driver = start(job(tmp_path, "killed", kind), tmp_path / "gate")
    with held_at(tmp_path / "gate", driver):
        kill_with_all_it_started(driver)
    standing = identities_of(tmp_path / "killed")
    committed = committed_units(tmp_path / "killed")
    # Two are in flight: this one began when all but one of those before it were reported.
    assert HELD_UNIT - 1 <= committed <= HELD_UNIT

    resumed = start(job(tmp_path, "killed", kind))
    output, errors = resumed.communicate(timeout=LONG)
    assert resumed.returncode == 0, errors
    assert int(output.split()[-1]) == UNITS - committed
    assert objects_of(tmp_path / "killed") == objects_of(tmp_path / "undisturbed")
    after = identities_of(tmp_path / "killed")
    assert {key: after[key] for key in standing} == standing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_told_to_end_ends_with_what_it_computed_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_rows(tmp_path)
    precompute(RunConfig.model_validate(job(tmp_path, "undisturbed")))
    driver = start(job(tmp_path, "ended", "ray"), tmp_path / "gate")
    with held_at(tmp_path / "gate", driver):
        started = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(number)
    # Its teacher was held until then: the unit behind the gate is complete a moment later, and is written.
    driver.wait(timeout=LONG)
    assert "KeyboardInterrupt" in driver.communicate()[1]
    psutil.wait_procs(started, timeout=30)
    assert not [process for process in started if process.is_running() and process.status() != "zombie"]
    committed = committed_units(tmp_path / "ended")
    resumed = start(job(tmp_path, "ended", "ray"))
    output, errors = resumed.communicate(timeout=LONG)
    assert resumed.returncode == 0, errors
    assert int(output.split()[-1]) == UNITS - committed
    assert objects_of(tmp_path / "ended") == objects_of(tmp_path / "undisturbed")


def test_two_jobs_on_one_store_at_once_both_end_well(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(RunConfig.model_validate(job(tmp_path, "undisturbed", row=1)))
    gates = [tmp_path / f"gate-{number}" for number in range(2)]
    drivers = [start(job(tmp_path, "shared", row=1), gate) for gate in gates]
    with contextlib.ExitStack() as held:
        for gate, driver in zip(gates, drivers, strict=True):
            held.enter_context(held_at(gate, driver))
        # The second comes to it from the end, where it has seen the first.
        first = tmp_path / "shared" / "teachers" / "a" / "commits" / "s0000-v0000-00000000.json"
        assert not first.exists(), "both are at work on the first unit"
    for driver in drivers:
        output, errors = driver.communicate(timeout=LONG)
        assert driver.returncode == 0, errors
        assert int(output.split()[-1]) == UNITS
    assert objects_of(tmp_path / "shared") == objects_of(tmp_path / "undisturbed")
