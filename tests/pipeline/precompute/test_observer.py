"""What a run says of itself: to who watches, in the store while it is at work, and when it ends."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from tests.worlds import run_config, teacher, write_rows

from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.heartbeat import Heartbeat
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import Run, read_runs, this_process
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreAccess, StoreBusy, UnitsGivenUp
from softcask.storage_schemas.runs import RunProgress


def runs_of(folder: Path) -> list[Run]:
    return read_runs(StoreObjects.at(str(folder / "cask")), records=True)


def test_a_run_that_ended_well_has_said_so_and_its_last_word_agrees_with_its_record(tmp_path: Path) -> None:
    write_rows(tmp_path)
    summary = precompute(run_config(tmp_path))
    (run,) = runs_of(tmp_path)
    assert run.progress is not None and run.record is not None
    assert run.name == run.progress.run == run.record.run == summary.run
    assert (run.progress.outcome, run.record.outcome) == ("finished", "finished")
    assert (run.progress.done, run.progress.total) == (2 * 230, 2 * 230)
    assert run.progress.rows == run.record.rows == {"a": 230, "b": 230}
    assert run.progress.device_seconds == run.record.device_seconds
    assert run.progress.process == this_process()
    assert set(run.record.stage_seconds) == {"read", "encode", "write"}
    written = [
        *tmp_path.glob("cask/teachers/*/logits/**/c/**/*"),
        *tmp_path.glob("cask/teachers/*/stats/**/*"),
    ]
    size = sum(path.stat().st_size for path in written if path.is_file())
    assert run.record.bytes == run.progress.bytes == size


def test_a_record_says_under_what_was_computed_and_that_nothing_of_it_lets_bits_differ(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a", num_cpus=1)))
    (run,) = runs_of(tmp_path)
    assert run.record is not None
    (found,) = run.record.conditions["a"]
    assert found["torch"] == torch.__version__
    assert (found["device"], found["threads"], found["deterministic"]) == ("cpu", 1, False)
    assert found["cpu"]
    assert run.record.may_differ == {}


def test_a_run_at_work_can_be_seen_in_the_store(tmp_path: Path) -> None:
    write_rows(tmp_path)
    objects = StoreObjects.at(str(tmp_path / "cask"))
    seen: list[str] = []

    def look(progress: Progress) -> None:
        if progress.task is not None and not seen:
            seen.extend(run.state(datetime.now(UTC)) for run in read_runs(objects))
            assert progress.live is not None and progress.live.stage == "label"

    precompute(run_config(tmp_path, teacher("a")), watch=look)
    assert seen == ["at work"]


def test_a_run_that_failed_says_by_what(tmp_path: Path) -> None:
    write_rows(tmp_path)
    late = teacher("a", factory="toy_models:faulty", kwargs={"where": 200 * 0.5})
    with pytest.raises(UnitsGivenUp):
        precompute(run_config(tmp_path, late))
    (run,) = runs_of(tmp_path)
    assert run.progress is not None and run.record is not None
    assert (run.progress.outcome, run.record.outcome) == ("failed", "failed")
    assert (run.progress.failed, run.record.failed, run.record.retries) == (1, 1, 3)
    assert "inputs-00000200" in run.progress.error
    assert run.record.error == run.progress.error


def test_a_run_that_was_interrupted_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path)

    def interrupt(progress: Progress) -> None:
        if progress.done == 2 * 32 and progress.stage == "label":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(run_config(tmp_path, teacher("a")), watch=interrupt)
    (run,) = runs_of(tmp_path)
    assert run.progress is not None and run.record is not None
    assert (run.progress.outcome, run.record.outcome) == ("interrupted", "interrupted")


def refuse_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bucket does whose objects may not be written over."""
    replace = StoreObjects.replace

    def refusing(self: StoreObjects, key: str, data: bytes) -> None:
        if key.endswith("/progress.json"):
            raise StoreAccess("objects may not be written over")
        replace(self, key, data)

    monkeypatch.setattr(StoreObjects, "replace", refusing)


def test_a_store_that_takes_no_word_is_labelled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(tmp_path)
    refuse_progress(monkeypatch)
    assert precompute(run_config(tmp_path, teacher("a"))).teachers["a"].rows == 230
    told = [record.message for record in caplog.records if "nobody will see" in record.message]
    assert len(told) == 1 and "may not be written over" in told[0]


def test_who_wants_a_store_alone_does_not_begin_where_nobody_would_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    refuse_progress(monkeypatch)
    with pytest.raises(StoreAccess, match="written over"):
        precompute(run_config(tmp_path, executor={"kind": "serial", "other_drivers": "refuse"}))


def test_a_second_driver_is_refused_while_the_first_is_at_work_and_nothing_is_lost(tmp_path: Path) -> None:
    write_rows(tmp_path)
    alone = run_config(tmp_path, teacher("a"), executor={"kind": "serial", "other_drivers": "refuse"})
    together = run_config(tmp_path, teacher("a"))
    refused: list[str] = []

    def second(progress: Progress) -> None:
        if progress.stage == "label" and progress.task is not None and not refused:
            for config in (alone, together):
                with pytest.raises(StoreBusy, match="at work"):
                    precompute(config)
                refused.append(config.executor.other_drivers)
            precompute(together, force=True)

    summary = precompute(alone, watch=second)
    assert refused == ["refuse", "cooperate"]
    assert summary.teachers["a"].rows == 230
    assert precompute(alone).tasks == 0


def test_two_drivers_that_cooperate_lose_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    config = run_config(tmp_path, teacher("a"))
    begun: list[int] = []

    def second(progress: Progress) -> None:
        if progress.stage == "label" and progress.task is not None and not begun:
            begun.append(precompute(config).teachers["a"].new_rows)

    first = precompute(config, watch=second)
    assert first.teachers["a"].rows == 230
    assert begun[0] <= 230 - 32  # what the first had done before was not done again
    records = [run.record for run in runs_of(tmp_path) if run.record is not None]
    assert sum(record.rows["a"] for record in records) == 230
    assert sum(record.units["a"] for record in records) == 8


def said(objects: StoreObjects) -> list[RunProgress]:
    return [run.progress for run in read_runs(objects) if run.progress is not None]


def test_a_heartbeat_goes_on_until_it_is_stopped_and_tells_a_fault_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    beats, enough = 0, threading.Event()

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            enough.set()
        raise StoreAccess("the bucket is away")

    heartbeat = Heartbeat(beat, every=0.001)
    with caplog.at_level(logging.WARNING, logger="softcask"):
        heartbeat.start()
        assert enough.wait(timeout=60)
        heartbeat.stop()
    stopped_at = beats
    assert [record.message for record in caplog.records] == [
        "cannot say where the run stands; it goes on: the bucket is away"
    ]
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    assert beats == stopped_at


def test_a_run_that_is_killed_is_found_silent_with_what_it_had_done(tmp_path: Path) -> None:
    """As SIGKILL leaves it: the last word stands, and no record."""
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    (run,) = runs_of(tmp_path)
    assert run.progress is not None
    objects = StoreObjects.at(str(tmp_path / "cask"))
    place, number, start = run.progress.process or ("", 0, 0)
    killed = run.progress.model_copy(update={"outcome": "", "process": (place, number, start - 1)})
    objects.replace(keys.run_progress(run.name), killed.to_bytes())
    objects.remove(keys.run_record(run.name))
    (found,) = said(objects)
    assert found.rows == {"a": 230}
    assert found.device_seconds["a"] > 0
