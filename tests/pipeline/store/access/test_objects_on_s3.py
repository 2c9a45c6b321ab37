"""Single objects on a real S3-protocol server in its own process, with faults put in before it."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.s3_server import (
    S3,
    SECRET,
    answering,
    landing,
    resetting,
    spoiling,
    stalling,
    truncating,
    unconditional,
)

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreAccess, StoreNotFound
from softcask.storage_schemas.manifest import ObjectRecord

KEY = "teachers/alpha/logits/c/0/0"
STANDS = f"some/cask/{KEY}"
MIB = 1 << 20

Act = Callable[..., Any]

PASSING = {
    "500": answering(500, "InternalError"),
    "503": answering(503, "SlowDown"),
    "503 without a word": answering(503, ""),
    "409 while another writes": answering(409, "ConditionalRequestConflict"),
    "reset": resetting,
}
NOT_PASSING = {
    "403": (answering(403, "AccessDenied"), "may get, put, delete and list"),
    "key": (answering(403, "InvalidAccessKeyId"), "Give credentials that hold"),
    "signature": (answering(403, "SignatureDoesNotMatch"), "Give credentials that hold"),
    "expired": (answering(400, "ExpiredToken"), "Give credentials that hold"),
    "bucket": (answering(404, "NoSuchBucket"), "no such bucket"),
    "region": (answering(400, "AuthorizationHeaderMalformed"), "AWS_DEFAULT_REGION"),
}


def test_what_was_published_is_read_back_and_its_name_is_taken(s3: S3) -> None:
    objects = s3.objects()
    assert objects.publish(KEY, b"first")
    assert not objects.publish(KEY, b"second")
    assert objects.read(KEY) == objects.read_if_present(KEY) == b"first"
    assert s3.standing() == {STANDS: b"first"}
    assert [request.headers["If-None-Match"] for request in s3.requests if request.method == "PUT"] == [
        "*"
    ] * 2


def test_each_call_is_one_request(s3: S3) -> None:
    objects, data = s3.objects(), bytes(2000)
    record = ObjectRecord.of(KEY, data)
    for call, method in (
        (lambda: objects.publish(KEY, data), "PUT"),
        (lambda: objects.replace(KEY, data), "PUT"),
        (lambda: objects.read(KEY), "GET"),
        (lambda: objects.read_if_present("nothing"), "GET"),
        (lambda: objects.read_recorded(record), "GET"),
        (lambda: objects.read_range(KEY, 10, 20), "GET"),
        (lambda: objects.names("teachers"), "GET"),
        (lambda: objects.all_keys(), "GET"),
        (lambda: objects.remove(KEY), "DELETE"),
    ):
        s3.requests.clear()
        call()
        assert s3.counted() == {method: 1}
        assert s3.requests[0].lists is (s3.requests[0].key == "")


def test_a_shard_larger_than_any_part_is_one_conditional_put(s3: S3) -> None:
    size = 101 * MIB  # s3fs begins to use parts at 100
    assert s3.objects().publish(KEY, bytes(size))
    (put,) = s3.requests
    assert (put.method, put.headers["Content-Length"]) == ("PUT", str(size))
    assert put.headers["If-None-Match"] == "*"


def test_ranges_are_read_as_asked_for(s3: S3) -> None:
    objects, data = s3.objects(), bytes(range(200))
    objects.publish(KEY, data)
    objects.publish("empty", b"")
    for start, stop in ((0, 200), (0, 1), (10, 20), (190, 300)):
        assert objects.read_range(KEY, start, stop) == data[start:stop]
    for start, stop in ((20, 20), (30, 20), (200, 210), (1000, 1001)):
        assert objects.read_range(KEY, start, stop) == b""
    assert objects.read_range("empty", 0, 10) == objects.read("empty") == b""
    with pytest.raises(StoreNotFound, match="nothing"):
        objects.read_range("nothing", 0, 10)


def test_an_object_that_is_not_what_was_committed_is_told_from_one_that_is(s3: S3) -> None:
    objects, record = s3.objects(), ObjectRecord.of(KEY, b"committed")
    with pytest.raises(CorruptObject, match=f"{KEY} was committed to {s3.uri} and is gone"):
        objects.read_recorded(record)
    for data, said in (
        (b"", "has 0 bytes, committed with 9"),
        (b"committed and more", "has more than the 9 bytes"),
        (b"Committed", "has CRC-32C"),
    ):
        objects.replace(KEY, data)
        with pytest.raises(CorruptObject, match=said):
            objects.read_recorded(record)
    objects.replace(KEY, b"")
    assert objects.read_recorded(ObjectRecord.of(KEY, b"")) == b""


def test_names_are_listed_as_they_stand_at_that_moment(s3: S3) -> None:
    objects = s3.objects()
    assert objects.names("") == objects.names("folder") == []
    assert objects.all_keys() == set()
    for number in range(3):
        objects.publish(f"folder/{number}", b"")
        assert objects.names("folder") == [str(n) for n in range(number + 1)]
    objects.publish("folder/deep/er", b"")
    s3.direct("PUT", f"/{s3.bucket}/some/cask-of-another/folder/x", b"")
    assert objects.names("folder") == ["0", "1", "2", "deep"]
    assert objects.all_keys() == {"folder/0", "folder/1", "folder/2", "folder/deep/er"}


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_nothing_is_lost_or_doubled(s3: S3, fault: str) -> None:
    objects = s3.objects()
    calls: dict[str, tuple[Callable[[], Any], Any]] = {
        "PUT": (lambda: objects.publish(KEY, b"first"), True),
        "GET": (lambda: objects.read(KEY), b"first"),
        "DELETE": (lambda: objects.remove("nothing"), None),
    }
    for method, (call, expected) in calls.items():
        s3.fault(PASSING[fault], method=method, times=3)
        assert call() == expected
    s3.fault(PASSING[fault], method="GET", times=3)
    assert objects.names("teachers") == ["alpha"]
    assert s3.standing() == {STANDS: b"first"}
    if fault != "reset":  # of which aiohttp repeats the first by itself
        assert s3.waits == [0.2, 0.4, 0.8] * 4


@pytest.mark.parametrize("fault", PASSING)
def test_trying_again_has_an_end_that_says_how_often_and_what_to_do(s3: S3, fault: str) -> None:
    objects = s3.objects(attempts=3)
    s3.fault(PASSING[fault], times=10**6)
    for call in (
        lambda: objects.publish(KEY, b"x"),
        lambda: objects.replace(KEY, b"x"),
        lambda: objects.read(KEY),
        lambda: objects.read_range(KEY, 0, 1),
        lambda: objects.names("teachers"),
        lambda: objects.all_keys(),
        lambda: objects.remove(KEY),
    ):
        with pytest.raises(StoreAccess, match=rf"{s3.uri}.*given up after 3 attempts.*run the command again"):
            call()
    assert s3.standing() == {}


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_does_not_come_is_asked_for_again(s3: S3) -> None:
    objects = s3.objects()
    for method in ("PUT", "GET"):
        s3.fault(stalling, method=method)
    assert objects.publish(KEY, b"first")
    assert objects.read(KEY) == b"first"
    assert s3.standing() == {STANDS: b"first"}
    assert len(s3.waits) == 2


def test_a_body_that_breaks_off_is_asked_for_again(s3: S3) -> None:
    objects, data = s3.objects(), bytes(range(256)) * 400
    objects.publish(KEY, data)
    for kept in (0, 1, 70_000, len(data) - 1):
        s3.fault(truncating(kept), method="GET")
        assert objects.read(KEY) == data
        s3.fault(truncating(kept), method="GET")
        assert objects.read_recorded(ObjectRecord.of(KEY, data)) == data
    assert len(s3.waits) == 8


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: b"", lambda data: b"\xff" + data[1:], lambda data: data * 2],
)
def test_a_body_spoiled_on_its_way_is_asked_for_again_by_its_record(
    s3: S3, change: Callable[[bytes], bytes]
) -> None:
    objects = s3.objects()
    objects.publish(KEY, b"as committed")
    s3.fault(spoiling(change), method="GET")
    assert objects.read_recorded(ObjectRecord.of(KEY, b"as committed")) == b"as committed"
    s3.fault(spoiling(change), method="GET", times=2)
    with pytest.raises(CorruptObject, match=KEY):
        objects.read_recorded(ObjectRecord.of(KEY, b"as committed"))


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
def test_a_put_that_landed_but_was_answered_with_an_error_is_known_to_be_ours(
    s3: S3, status: int, code: str
) -> None:
    objects = s3.objects()
    s3.fault(landing(status, code), method="PUT")
    assert objects.publish(KEY, b"ours")
    assert s3.standing() == {STANDS: b"ours"}
    assert s3.counted() == {"PUT": 2, "GET": 1}


def test_a_put_that_failed_while_another_writer_was_first_is_not_ours(s3: S3) -> None:
    objects = s3.objects()

    def overtaken(handler: Any, _: bytes) -> int:
        s3.direct("PUT", f"/{s3.bucket}/{STANDS}", b"theirs")
        return int(handler.refuse(500, "InternalError"))

    s3.fault(overtaken, method="PUT")
    assert not objects.publish(KEY, b"ours")
    assert s3.standing() == {STANDS: b"theirs"}


def test_a_put_that_landed_while_every_answer_failed_is_found_by_the_next_run(s3: S3) -> None:
    s3.fault(landing(500, "InternalError"), method="PUT", times=4)
    with pytest.raises(StoreAccess, match="could not write"):
        s3.objects(attempts=4).publish(KEY, b"ours")
    assert not s3.objects().publish(KEY, b"ours")
    assert s3.standing() == {STANDS: b"ours"}


@pytest.mark.parametrize("fault", NOT_PASSING)
def test_what_will_not_pass_is_not_tried_again_and_says_what_to_do(s3: S3, fault: str) -> None:
    act, said = NOT_PASSING[fault]
    objects = s3.objects()
    s3.fault(act, times=10**6)
    calls: list[Callable[[], Any]] = [
        lambda: objects.publish(KEY, b"x"),
        lambda: objects.replace(KEY, b"x"),
        lambda: objects.read_if_present(KEY),
        lambda: objects.read_recorded(ObjectRecord.of(KEY, b"x")),
        lambda: objects.names("teachers"),
        lambda: objects.all_keys(),
    ]
    for call in calls:
        with pytest.raises(StoreAccess, match=said):
            call()
    assert s3.waits == []


def test_a_bucket_that_is_not_there_is_no_empty_store(s3: S3) -> None:
    objects = StoreObjects.at("s3://no-such-bucket-anywhere/cask")
    calls: list[Callable[[], Any]] = [
        lambda: objects.read_if_present(KEY),
        lambda: objects.names(""),
        lambda: objects.all_keys(),
        lambda: objects.publish(KEY, b"x"),
    ]
    for call in calls:
        with pytest.raises(StoreAccess, match=r"s3://no-such-bucket-anywhere/cask.*no such bucket\. Make it"):
            call()


@pytest.mark.usefixtures("new_clients")
@pytest.mark.parametrize("profile", [None, "nobody"])
def test_without_credentials_it_says_how_to_give_them(
    s3: S3, monkeypatch: pytest.MonkeyPatch, profile: str | None
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    said = f"{profile or 'credentials'}.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.*AWS_PROFILE"
    with pytest.raises(StoreAccess, match=said):
        s3.objects().read(KEY)
    assert s3.waits == []


@pytest.mark.usefixtures("new_clients")
def test_credentials_come_from_a_profile_too(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert s3.objects().publish(KEY, b"x")
    assert "Credential=AKIAPROFILE/" in s3.requests[0].headers["Authorization"]


@pytest.mark.usefixtures("new_clients")
def test_an_endpoint_where_nobody_listens_is_named(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreAccess, match=r"127\.0\.0\.1:1.*given up after 2.*AWS_ENDPOINT_URL"):
        s3.objects(attempts=2).read(KEY)


@pytest.mark.usefixtures("new_clients")
def test_a_password_in_the_endpoint_is_not_shown(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hunter/2@127.0.0.1:1")
    with pytest.raises(StoreAccess, match=r"http://\*\*\*@127") as raised:
        s3.objects().read(KEY)
    assert "hunter" not in str(raised.value)
    assert s3.waits == []


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/cask",
        f"s3a://AKIAEXAMPLE:{SECRET.replace('/', '%2F')}@bucket/cask",
        f"gs://token:{SECRET}@bucket/cask",
        f"simplecache::s3://AKIAEXAMPLE:{SECRET}@bucket/cask",
        f"sftp://me:{SECRET}@host/cask",
    ],
)
def test_credentials_in_an_address_are_refused_without_showing_them(uri: str) -> None:
    with pytest.raises(StoreAccess, match="has a password in it.*AWS_PROFILE") as raised:
        StoreObjects.at(uri)
    assert SECRET[:8] not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_credentials_are_in_an_error_a_repr_or_a_pickle(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSPEC_S3_SECRET", SECRET)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "AKIAEXAMPLE", "secret": SECRET})
    objects = s3.objects()
    assert objects.publish(KEY, b"x")

    def echoing(handler: Any, _: bytes) -> int:
        text = f"<Error><Code>BadEcho</Code><Message>you sent {SECRET}</Message></Error>"
        handler.answer(400, [("Content-Type", "application/xml")], text.encode())
        return 400

    s3.fault(echoing, times=2)
    for call in (lambda: objects.read(KEY), lambda: objects.publish("other", b"x")):
        with pytest.raises(SoftcaskError, match=r"you sent \*\*\*") as raised:
            call()
        assert SECRET not in str(raised.value)
    assert SECRET not in repr(objects)
    assert SECRET.encode() not in pickle.dumps(objects)


def test_a_server_that_ignores_the_condition_is_found_out(s3: S3) -> None:
    objects = s3.objects()
    objects.publish(KEY, b"root")
    objects.refuse_overwriting(KEY, b"root")
    s3.fault(unconditional, method="PUT")
    with pytest.raises(StoreAccess, match="ignores `If-None-Match"):
        objects.refuse_overwriting(KEY, b"root")
    assert s3.standing() == {STANDS: b"root"}


def test_of_threads_that_race_for_a_name_exactly_one_wins_whatever_the_server_answers(s3: S3) -> None:
    threads = 4
    for round_number in range(5):
        key, start = f"k/{round_number}", threading.Barrier(threads)
        s3.fault(landing(500, "InternalError"), method="PUT", key=key)
        s3.fault(answering(503, "SlowDown"), method="PUT", key=key)

        def race(number: int, start: threading.Barrier = start, key: str = key) -> bool:
            objects = s3.objects()
            start.wait()
            return objects.publish(key, bytes([number]) * 1000)

        with ThreadPoolExecutor(threads) as pool:
            won = list(pool.map(race, range(threads)))
        assert won.count(True) == 1
        assert s3.standing()[f"some/cask/{key}"] == bytes([won.index(True)]) * 1000


def _read_in_child(objects: StoreObjects, answers: Any) -> None:
    answers.put(objects.read(KEY))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_objects_that_were_read_here_are_read_in_a_child_too(s3: S3, method: Any) -> None:
    objects = StoreObjects.at(s3.uri)
    objects.publish(KEY, b"first")
    assert objects.read(KEY) == b"first"
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(objects, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == b"first"
