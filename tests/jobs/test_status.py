"""`softcask status`, and what `precompute` tells on its way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.conftest import Project
from tests.worlds import objects_of
from typer.testing import Result

from softcask.jobs import figures, status
from softcask.jobs.watching import RunLines
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.runs import RunProgress

Softcask = Callable[..., Result]
STAGES = {"read": 1.0, "forward": 8.0, "encode": 0.5, "write": 0.5}


def say(store: str, run: str, *, ago: float = 3.0, **fields: Any) -> RunProgress:
    given: dict[str, Any] = {"stage": "label", "done": 120, "total": 600, **fields}
    progress = RunProgress(
        run=run,
        started="2026-01-01T00:00:00+00:00",
        updated=(datetime.now(UTC) - timedelta(seconds=ago)).isoformat(),
        beat=1,
        interval=10.0,
        host="node-7",
        executor="ray",
        **given,
    )
    StoreObjects.at(store).replace(keys.run_progress(run), progress.to_bytes())
    return progress


def test_a_run_at_work_is_shown_with_its_rate_what_is_missing_and_what_went_wrong(
    softcask: Softcask, project: Project
) -> None:
    say(
        project.store,
        "20260101T000000-000000-beef",
        rows_per_second=40.0,
        seconds_left=12.0,
        workers=2,
        in_flight=4,
        retries=1,
        bytes=3 << 20,
        busy=0.93,
        stage_seconds=STAGES,
        missing="teacher b waits for 1 GPU, the cluster has 0, for 120 s",
        error="unit s0000-v0000-00000003: out of memory",
    )
    shown = softcask("status", project.store)
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert re.search(r"at work, heard of \d+ s ago", text)
    for told in (
        "node-7",
        "120 of 600",
        "40/s",
        "12 s",
        "2 workers, 4 in flight, 1 retry, 3.0 MiB, devices busy 93%",
        "forward 80%, read 10%, encode 5%, write 5%",
        "waits: teacher b waits for 1 GPU, the cluster has 0, for 120 s",
        "unit s0000-v0000-00000003: out of memory",
        "not sealed",
    ):
        assert told in text, told


def test_a_driver_that_was_killed_is_said_to_give_no_sign_of_life(
    softcask: Softcask, project: Project
) -> None:
    dead = say(project.store, "20260101T000000-000000-dead", ago=3600)
    shown = softcask("status", project.store)
    heard = datetime.fromisoformat(dead.updated).astimezone()
    assert f"no sign of life since {heard:%Y-%m-%d %H:%M:%S}" in shown.stdout


def test_json_holds_every_run_newest_first_and_the_sealed_generation(
    softcask: Softcask, project: Project
) -> None:
    done = json.loads(softcask("precompute", project.run, "--json").stdout)
    say(project.store, "99990101T000000-000000-beef", rows_per_second=40.0, workers=2)
    before = objects_of(Path(project.store))
    told = json.loads(softcask("status", project.store, "--json").stdout)
    assert told["generation"] == done["generation"] == 1
    assert told["teachers"]["a"]["units"] == told["teachers"]["a"]["planned_units"] == 8
    assert [(run["run"], run["state"]) for run in told["runs"]] == [
        ("99990101T000000-000000-beef", "at work"),
        (done["run"], "finished"),
    ]
    assert told["runs"][0]["rows_per_second_a_device"] == 20.0
    assert told["runs"][1]["rows"] == {"a": 230, "b": 230}
    assert objects_of(Path(project.store)) == before


def test_a_damaged_word_is_told_and_hides_no_other_run(softcask: Softcask, project: Project) -> None:
    say(project.store, "20260101T000000-000000-beef")
    StoreObjects.at(project.store).replace(keys.run_progress("20260102T000000-000000-bad0"), b"[]")
    told = json.loads(softcask("status", project.store, "--json").stdout)
    assert [run["state"] for run in told["runs"]] == ["unreadable", "at work"]
    assert "holds a list" in told["runs"][0]["problem"]


def test_a_place_without_a_store_is_refused(softcask: Softcask, tmp_path: Path) -> None:
    refused = softcask("status", str(tmp_path / "nowhere"))
    assert refused.exit_code == 2
    assert "there is no softcask store" in refused.stderr


def test_watching_prints_a_line_of_json_each_time_until_it_is_interrupted(
    softcask: Softcask, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(project.store, "20260101T000000-000000-beef")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", wait)
    watched = softcask("status", project.store, "--watch", "--json", "--every", "2")
    assert watched.exit_code == 0
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [line["runs"][0]["done"] for line in lines] == [120, 120, 120]
    assert waits == [2.0, 2.0, 2.0]


def test_precompute_tells_its_progress_as_json_lines_on_stderr(softcask: Softcask, project: Project) -> None:
    done = softcask("precompute", project.run, "--json")
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert all(line["event"] == "progress" for line in lines)
    assert [(line["stage"], line["done"]) for line in lines if line["done"] == line["total"]] == [
        ("index", 230),
        ("label", 460),
    ]
    assert lines[-1]["run"] == json.loads(done.stdout)["run"]


def test_json_lines_are_few_however_many_steps_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    tell = RunLines(clock=lambda: now)
    for step in range(1, 1001):
        now = step * 0.1
        tell(Progress(stage="label", done=step, total=1000))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["done"] == 1 and lines[-1]["done"] == 1000
    assert len(lines) <= 100 / 5 + 2


def test_a_driver_that_is_refused_says_what_to_do_and_ends_with_2(
    softcask: Softcask, project: Project
) -> None:
    say(project.store, "20260101T000000-000000-beef", other_drivers="cooperate")
    refused = softcask("precompute", project.run, "--set", "executor.other_drivers=refuse")
    assert refused.exit_code == 2
    assert "run 20260101T000000-000000-beef on node-7" in refused.stderr
    assert "--force" in refused.stderr
    forced = softcask("precompute", project.run, "--set", "executor.other_drivers=refuse", "--force")
    assert forced.exit_code == 0, forced.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (41.4, "41 s"), (187, "3:07"), (7387, "2:03:07"), (266_587, "3 d 02:03")],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


def test_a_log_for_machines_holds_what_a_command_ends_in(
    softcask: Softcask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTCASK_LOG", "text")  # and is put back after the test
    refused = softcask("--log-json", "status", str(tmp_path / "nowhere"))
    assert refused.exit_code == 2
    (line,) = [json.loads(line) for line in refused.stderr.splitlines()]
    assert (line["level"], line["logger"]) == ("error", "softcask")
    assert "there is no softcask store" in line["message"]


def test_a_log_level_that_there_is_not_is_refused(
    softcask: Softcask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTCASK_LOG_LEVEL", "loud")
    refused = softcask("status", str(tmp_path))
    assert refused.exit_code == 2
    assert "SOFTCASK_LOG_LEVEL=loud; expected one of" in refused.stderr
