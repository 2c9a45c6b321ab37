"""A whole store on a real S3-protocol server: made, sealed, read and verified, while faults come and go."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.s3_server import (
    S3,
    Fault,
    answering,
    landing,
    landing_unanswered,
    resetting,
    truncating,
    unconditional,
)
from tests.stores import Killed, MadeStore, flip, mortal, sealed_store

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, StoreAccess, StoreNotFound

ROWS = np.arange(19)


@pytest.fixture
def local(tmp_path: Path) -> tuple[MadeStore, dict[str, bytes]]:
    """The same store on a local disk, and its objects."""
    made = sealed_store(str(tmp_path / "local"))
    return made, {key: made.objects.read(key) for key in made.objects.all_keys()}


def objects_on(s3: S3) -> dict[str, bytes]:
    return {key.removeprefix("some/cask/"): data for key, data in s3.standing().items()}


class Storm(Fault):
    """Every second request fails, each time in the next way."""

    def __init__(self) -> None:
        ways = (
            answering(500, "InternalError"),
            answering(503, "SlowDown"),
            landing(500, "InternalError"),
            truncating(3),
            resetting,
            landing_unanswered,
        )
        self.ways, self.seen, self.failed = itertools.cycle(ways), 0, 0

    def hits(self, method: str, key: str) -> bool:
        self.seen += 1
        if self.seen % 2:
            return False
        self.act, self.times, self.failed = next(self.ways), 1, self.failed + 1
        return True


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Retries of whatever is opened here do not sleep."""
    waits: list[float] = []
    at = StoreObjects.at

    def opened(uri: str) -> StoreObjects:
        found = at(uri)
        retries = type(found.retries)(sleep=waits.append)
        return StoreObjects(found.uri, found.fs, found.root, retries=retries)

    monkeypatch.setattr(StoreObjects, "at", staticmethod(opened))
    yield waits


def test_a_store_on_s3_is_object_by_object_the_one_on_a_disk(
    s3: S3, local: tuple[MadeStore, dict[str, bytes]]
) -> None:
    sealed_store(s3.uri)
    assert objects_on(s3) == local[1]
    opened = open_store(s3.uri)
    for teacher in ("alpha", "beta"):
        expected_NC = local[0].readable_logits(teacher)
        np.testing.assert_allclose(opened.logits(teacher, ROWS), expected_NC, rtol=2e-3, atol=2e-2)
        np.testing.assert_array_equal(
            opened.logits(teacher, ROWS), open_store(local[0].objects.uri).logits(teacher, ROWS)
        )
    report = verify(s3.uri)
    assert (report.problems, report.orphans) == ((), 0)


def test_nothing_is_lost_or_doubled_while_every_second_request_fails(
    s3: S3, local: tuple[MadeStore, dict[str, bytes]], unhurried: list[float]
) -> None:
    s3.proxy.faults.append(storm := Storm())
    sealed_store(s3.uri, teachers=["alpha"])
    found_NC = open_store(s3.uri).logits("alpha", ROWS)
    report = verify(s3.uri)
    s3.proxy.faults.clear()
    assert storm.failed > 50
    assert len(unhurried) > 30
    expected = {key: data for key, data in local[1].items() if "beta" not in key and "catalog" not in key}
    found = {key: data for key, data in objects_on(s3).items() if "catalog" not in key}
    assert found == expected
    np.testing.assert_array_equal(found_NC, open_store(local[0].objects.uri).logits("alpha", ROWS))
    assert report.problems == ()


def test_a_sealed_store_opens_with_seven_reads_and_no_listing(s3: S3) -> None:
    sealed_store(s3.uri, teachers=["alpha"])
    s3.requests.clear()
    opened = open_store(s3.uri)
    assert s3.counted() == {"GET": 7}
    opened.logits("alpha", ROWS)
    assert s3.counted() == {"GET": 7 + 1 + 3 * 2}  # the rows' table; of 3 units two shards each
    opened.logits("alpha", ROWS)
    assert s3.counted() == {"GET": 14}
    assert not any(request.lists for request in s3.requests)


def test_units_and_generations_add_no_listing_to_opening(s3: S3) -> None:
    made = sealed_store(s3.uri, teachers=["alpha"])
    made.add_segment(40)
    made.teachers.pop("alpha")
    made.add_teacher("gamma")
    made.commit_all()
    seal(made.objects)
    s3.requests.clear()
    opened = open_store(s3.uri, allow_partial=False)
    assert opened.generation == 2
    assert not any(request.lists for request in s3.requests)
    assert s3.counted()["GET"] <= 12


def test_committing_a_unit_takes_four_writes_and_three_small_reads(s3: S3) -> None:
    made = MadeStore.at(s3.uri)
    made.add_segment(20)
    made.add_teacher("alpha")
    s3.requests.clear()
    made.commit("alpha", 0)
    assert s3.counted() == {"GET": 3, "PUT": 4}
    read = {request.key.rsplit("/", 1)[-1] for request in s3.requests if request.method == "GET"}
    assert read == {"teacher.json", "s0000-v0000-00000000.json"}
    assert not any(request.lists for request in s3.requests)


@pytest.mark.parametrize("landed", [False, True])
def test_two_writers_of_one_unit_leave_one_whole_unit(s3: S3, landed: bool, unhurried: list[float]) -> None:
    made = MadeStore.at(s3.uri)
    made.add_segment(8)
    made.add_teacher("alpha")
    if landed:
        s3.fault(landing(500, "InternalError"), method="PUT", times=5)
    start = threading.Barrier(2)

    def write(_: int) -> Any:
        objects = StoreObjects.at(s3.uri)
        start.wait()
        return made.commit("alpha", 0, objects=objects)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(write, range(2))
    assert first == second
    assert set(objects_on(s3)) >= {record.key for record in first.objects}
    seal(made.objects)
    report = verify(s3.uri)
    assert (report.problems, report.orphans) == ((), 0)


def test_a_writer_killed_at_any_of_its_writes_is_gone_on_from(s3: S3) -> None:
    made = MadeStore.at(s3.uri)
    made.add_segment(64)
    made.add_teacher("alpha")
    for unit, (step, after) in enumerate(itertools.product((1, 2, 3, 4), (False, True))):
        with pytest.raises(Killed):
            made.commit("alpha", unit, objects=mortal(made.objects, step, after=after))
    committed = [key for key in objects_on(s3) if "/commits/" in key]
    assert committed == [keys.commit("alpha", "s0000-v0000-00000007")]  # killed after its receipt
    made.commit_all()
    seal(made.objects)
    report = verify(s3.uri)
    assert (report.problems, report.orphans) == ((), 0)
    found_NC = open_store(s3.uri).logits("alpha", np.arange(64))
    np.testing.assert_allclose(found_NC, made.readable_logits("alpha"), rtol=2e-3, atol=2e-2)


def test_damage_on_the_server_is_found_by_name(s3: S3) -> None:
    made = sealed_store(s3.uri)
    shard = f"{keys.logits_group('alpha', 's0000', 0)}/logits/c/1/0"
    stored = made.objects.read(shard)
    for damaged in (flip(stored, len(stored) // 2), stored[:-1], b""):
        made.objects.replace(shard, damaged)
        with pytest.raises(CorruptObject, match=shard):
            open_store(s3.uri).logits("alpha", ROWS)
        assert [problem.key for problem in verify(s3.uri).problems] == [shard]
    made.objects.remove(shard)
    with pytest.raises(CorruptObject, match=shard):
        open_store(s3.uri).logits("alpha", ROWS)


def test_a_place_without_a_store_is_told_from_a_server_in_trouble(s3: S3, unhurried: list[float]) -> None:
    with pytest.raises(StoreNotFound, match="there is no softcask store"):
        open_store(s3.uri)
    sealed_store(s3.uri)
    for act, said in (
        (answering(503, "SlowDown"), "503 SlowDown.*given up after 10 attempts.*in trouble"),
        (answering(403, "AccessDenied"), "403 AccessDenied.*may get, put, delete and list"),
    ):
        s3.proxy.faults.clear()
        s3.fault(act, times=10**6)
        with pytest.raises(StoreAccess, match=said):
            open_store(s3.uri)
        with pytest.raises(StoreAccess, match=said):
            verify(s3.uri)


def test_a_server_without_conditional_writes_is_refused_before_any_work(s3: S3) -> None:
    s3.fault(unconditional, method="PUT", times=10**6)
    with pytest.raises(StoreAccess, match=f"cannot write to {s3.uri}.*ignores `If-None-Match"):
        MadeStore.at(s3.uri)


def test_the_store_of_another_prefix_is_not_ours(s3: S3) -> None:
    sealed_store(f"{s3.uri}-other")
    with pytest.raises(StoreNotFound):
        open_store(s3.uri)
    made = sealed_store(s3.uri)
    assert made.objects.all_keys() == StoreObjects.at(f"{s3.uri}-other").all_keys()
