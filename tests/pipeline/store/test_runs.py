"""How a run stands, from what its driver said and when; by no clock but the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import is_gone, moment, read_runs, state_of, this_process
from softcask.storage_schemas import keys
from softcask.storage_schemas.runs import RunProgress, RunRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def said(run: str = "one", *, ago: float = 0.0, **fields: Any) -> RunProgress:
    """What a driver said so many seconds before noon."""
    updated = (NOON - timedelta(seconds=ago)).isoformat()
    given = {"beat": 3, "interval": 10.0, "host": "far", "executor": "ray", "stage": "label", **fields}
    return RunProgress(run=run, started=NOON.isoformat(), updated=updated, **given)


@pytest.mark.parametrize(
    ("ago", "state"), [(0, "at work"), (59, "at work"), (61, "silent"), (-59, "at work"), (-61, "silent")]
)
def test_a_driver_is_at_work_while_it_was_heard_of_within_a_minute_by_either_clock(
    ago: float, state: str
) -> None:
    assert state_of(said(ago=ago), NOON) == state


def test_a_driver_that_said_how_it_ended_is_believed_however_long_ago() -> None:
    for outcome in ("finished", "failed", "interrupted", "refused"):
        assert state_of(said(ago=1e6, outcome=outcome), NOON) == outcome


def test_a_process_is_known_to_be_gone_once_it_has_ended_even_if_its_number_is_given_anew() -> None:
    me = this_process()
    assert me is not None
    place, number, start = me
    assert number == os.getpid()
    assert not is_gone(me)
    assert is_gone((place, number, start - 1))  # an earlier process of this number
    assert not is_gone(("elsewhere", number, start - 1))  # of which nothing is known here
    assert not is_gone(None)


def test_a_process_that_was_killed_and_not_yet_buried_is_gone() -> None:
    code = (
        "from softcask.pipeline.store.runs import this_process; print(*this_process(), flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    place, number, start = child.stdout.readline().split()
    process = (place, int(number), int(start))
    assert not is_gone(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and its parent has not looked
    assert is_gone(process)
    assert state_of(said(process=process), NOON) == "gone"
    child.communicate()


def test_times_that_are_none_are_long_ago() -> None:
    assert moment("2026-01-01T12:00:00") == NOON
    for text in ("", "soon", "2026-13-01"):
        assert moment(text).year == 1970


def test_runs_are_read_oldest_first_and_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    objects = StoreObjects.at(str(tmp_path))
    objects.replace(keys.run_progress("20260102T000000-a"), said("20260102T000000-a").to_bytes())
    objects.replace(keys.run_progress("20260103T000000-b"), b"{ not JSON")
    record = RunRecord(
        run="20260101T000000-c",
        started="",
        wall_seconds=1.0,
        executor="serial",
        workers=1,
        host="",
        versions={},
        units={},
        rows={},
        device_seconds={},
        stage_seconds={},
        devices=(),
    )
    objects.replace(keys.run_record(record.run), record.to_bytes())
    objects.replace("runs/sources/s0000.json", b"{}")
    objects.replace("runs/claims/00000001.json", b"{}")
    found = read_runs(objects)
    assert [(run.name[9:], run.state(NOON)) for run in found] == [
        ("000000-c", "finished"),
        ("000000-a", "at work"),
        ("000000-b", "unreadable"),
    ]
    assert "20260103T000000-b/progress.json is not readable JSON" in found[2].problem


def test_a_record_of_the_end_counts_more_than_a_last_word_that_came_late(tmp_path: Path) -> None:
    objects = StoreObjects.at(str(tmp_path))
    progress = said("one", ago=5)
    record = RunRecord(
        run="one",
        started="",
        wall_seconds=1.0,
        executor="serial",
        workers=1,
        host="",
        versions={},
        units={},
        rows={},
        device_seconds={},
        stage_seconds={},
        devices=(),
        outcome="failed",
    )
    objects.replace(keys.run_progress("one"), progress.to_bytes())
    objects.replace(keys.run_record("one"), record.to_bytes())
    (run,) = read_runs(objects)
    assert run.state(NOON) == "failed"
