"""Two drivers on one store: who goes on, who is refused, and that the dead are in nobody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from softcask.pipeline.precompute.turns import OtherDrivers, Turn
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreBusy
from softcask.storage_schemas.runs import RunProgress

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def objects(tmp_path: Path) -> StoreObjects:
    return StoreObjects.at(str(tmp_path))


def say(objects: StoreObjects, run: str, *, ago: float = 5.0, **fields: Any) -> None:
    """What a driver said so many seconds before noon."""
    given: dict[str, Any] = {"beat": 3, "other_drivers": "cooperate", "outcome": "", **fields}
    progress = RunProgress(
        run=run,
        started=NOON.isoformat(),
        updated=(NOON - timedelta(seconds=ago)).isoformat(),
        interval=10.0,
        host="far",
        executor="ray",
        stage="label",
        done=120,
        total=600,
        **given,
    )
    objects.replace(keys.run_progress(run), progress.to_bytes())


def never(_: float) -> None:
    pytest.fail("nothing was to be waited for")


def turn(
    objects: StoreObjects,
    run: str,
    other_drivers: OtherDrivers = "refuse",
    *,
    force: bool = False,
    wait: Callable[[float], None] = never,
) -> Turn:
    return Turn(
        objects=objects,
        run=run,
        host="here",
        other_drivers=other_drivers,
        force=force,
        now=lambda: NOON,
        wait=wait,
    )


def test_drivers_that_cooperate_begin_beside_each_other(objects: StoreObjects) -> None:
    say(objects, "first")
    turn(objects, "second", "cooperate").look()
    turn(objects, "second", "cooperate").take()
    assert objects.names(keys.CLAIMS) == []


def test_a_driver_that_wants_the_store_alone_does_not_begin_beside_one_at_work(objects: StoreObjects) -> None:
    say(objects, "first", ago=7)
    with pytest.raises(StoreBusy) as refused:
        turn(objects, "second").look()
    message = str(refused.value)
    for told in ("run first on far", "7 s ago", "label: 120 of 600", "--force", "softcask status", "60 s"):
        assert told in message


@pytest.mark.parametrize("outcome", ["finished", "failed", "interrupted", "refused"])
def test_who_has_ended_is_in_nobodys_way(objects: StoreObjects, outcome: str) -> None:
    say(objects, "first", outcome=outcome)
    second = turn(objects, "second")
    second.look()
    second.take()


def test_others_do_not_begin_beside_one_that_wants_the_store_alone(objects: StoreObjects) -> None:
    say(objects, "first", other_drivers="refuse")
    turn(objects, "first").take()
    for other in ("cooperate", "refuse"):
        with pytest.raises(StoreBusy, match="run first on far"):
            turn(objects, "second", other).look()
        with pytest.raises(StoreBusy, match="run first on far"):
            turn(objects, "second", other).take()


def test_force_begins_in_any_case_and_takes_the_turn(objects: StoreObjects) -> None:
    say(objects, "first", other_drivers="refuse")
    turn(objects, "first").take()
    say(objects, "second", other_drivers="refuse")
    forced = turn(objects, "second", force=True)
    forced.look()
    forced.take()
    with pytest.raises(StoreBusy, match="run second on far"):
        turn(objects, "third", "cooperate").look()


def test_of_many_that_begin_at_one_moment_exactly_one_goes_on(objects: StoreObjects) -> None:
    together = threading.Barrier(8)
    went_on: list[str] = []

    def begin(run: str) -> None:
        mine = turn(objects, run)
        mine.look()
        together.wait()
        say(objects, run, other_drivers="refuse")
        try:
            mine.take()
            went_on.append(run)
        except StoreBusy:
            # As the observer does: who is refused says so.
            say(objects, run, other_drivers="refuse", outcome="refused")

    threads = [threading.Thread(target=begin, args=(f"run-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(went_on) == 1


def test_of_two_claims_made_at_once_the_loser_sees_the_winner(
    objects: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other publishes between this one's look at the claims and its own claim."""
    say(objects, "mine", other_drivers="refuse")
    publish = StoreObjects.publish

    def after_the_other(self: StoreObjects, key: str, data: bytes) -> bool:
        monkeypatch.setattr(StoreObjects, "publish", publish)
        say(objects, "other", other_drivers="refuse")
        turn(objects, "other").take()
        return publish(self, key, data)

    monkeypatch.setattr(StoreObjects, "publish", after_the_other)
    with pytest.raises(StoreBusy, match="run other"):
        turn(objects, "mine").take()


def test_one_that_is_silent_for_a_minute_is_watched_and_then_is_in_nobodys_way(objects: StoreObjects) -> None:
    say(objects, "dead", ago=100, other_drivers="refuse")
    waited: list[float] = []
    second = turn(objects, "second", wait=waited.append)
    second.look()
    assert waited == [20.0]


def test_one_whose_clock_is_slow_is_seen_to_live_while_it_is_watched(objects: StoreObjects) -> None:
    say(objects, "slow", ago=3000, beat=3)
    second = turn(objects, "second", wait=lambda _: say(objects, "slow", ago=2980, beat=5))
    with pytest.raises(StoreBusy, match="run slow"):
        second.look()


def test_one_that_has_been_silent_for_days_is_not_waited_for(objects: StoreObjects) -> None:
    say(objects, "old", ago=200_000)
    turn(objects, "second").look()


def test_a_damaged_word_or_claim_is_in_nobodys_way(objects: StoreObjects) -> None:
    objects.replace(keys.run_progress("first"), b"\x00")
    objects.replace(keys.claim(1), b"{}")
    objects.replace(f"{keys.CLAIMS}/notes.json", b"not ours")
    say(objects, "second", other_drivers="refuse")
    second = turn(objects, "second")
    second.look()
    second.take()
    assert "00000002.json" in objects.names(keys.CLAIMS)


def test_drivers_at_work_are_ranked_by_when_they_came_and_the_dead_do_not_count(
    objects: StoreObjects,
) -> None:
    for run, ago, outcome in (("a", 5.0, ""), ("b", 500.0, ""), ("c", 5.0, "finished"), ("d", 5.0, "")):
        say(objects, run, ago=ago, outcome=outcome)
    ranks = {run: turn(objects, run, "cooperate").rank() for run in "acde"}
    assert ranks == {"a": 0, "c": 1, "d": 1, "e": 2}
