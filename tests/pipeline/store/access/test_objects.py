from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from tests.stores import all_objects

from softcask.pipeline.store.access import local_objects
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.access.retries import Retries
from softcask.storage_schemas.errors import CorruptObject, StoreAccess, StoreError, StoreNotFound
from softcask.storage_schemas.manifest import ObjectRecord

KEY = "teachers/alpha/logits/c/0/0"


@pytest.fixture(params=["local", "local without unnamed files", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreObjects:
    if request.param == "memory":
        return StoreObjects.at(f"memory://{tmp_path}")
    if request.param != "local":
        refuse_unnamed_files(monkeypatch, errno.EOPNOTSUPP)
    return StoreObjects.at(str(tmp_path / "store"))


@pytest.fixture
def local(tmp_path: Path) -> StoreObjects:
    return StoreObjects.at(str(tmp_path / "store"))


def refuse_unnamed_files(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A filesystem without O_TMPFILE, as NFS and some FUSE ones are."""
    real = os.open

    def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)


def test_what_was_published_is_read_back_and_its_name_is_taken(objects: StoreObjects) -> None:
    assert objects.publish(KEY, b"first")
    assert not objects.publish(KEY, b"second")
    assert objects.read(KEY) == objects.read_if_present(KEY) == b"first"
    assert all_objects(objects) == {KEY: b"first"}


def test_an_object_of_no_bytes_is_an_object(objects: StoreObjects) -> None:
    assert objects.publish(KEY, b"")
    assert not objects.publish(KEY, b"x")
    assert objects.read(KEY) == b""


def test_what_is_replaced_is_replaced_whole_whatever_stood_there(objects: StoreObjects) -> None:
    for data in (b"first, and long", b"second"):
        objects.replace(KEY, data)
        assert all_objects(objects) == {KEY: data}


def test_what_is_removed_is_gone_and_may_be_gone_already(objects: StoreObjects) -> None:
    objects.publish(KEY, b"first")
    objects.publish(f"{KEY}-other", b"stays")
    for _ in range(2):
        objects.remove(KEY)
        assert all_objects(objects) == {f"{KEY}-other": b"stays"}
    assert objects.publish(KEY, b"second")


def test_an_equal_object_may_stand_already_and_another_may_not(objects: StoreObjects) -> None:
    objects.publish_equal(KEY, b"first")
    objects.publish_equal(KEY, b"first")
    with pytest.raises(CorruptObject, match=KEY):
        objects.publish_equal(KEY, b"second")
    assert objects.read(KEY) == b"first"


def test_what_is_not_there_is_said_not_to_be(objects: StoreObjects) -> None:
    assert objects.read_if_present(KEY) is None
    assert objects.names("teachers") == []
    assert objects.names("") == []
    with pytest.raises(StoreNotFound, match=KEY):
        objects.read(KEY)


def test_names_are_sorted_and_leave_temporaries_out(objects: StoreObjects) -> None:
    for name in ("b", "a", "c/d", ".tmp-a-0123", ".hidden"):
        objects.publish(f"folder/{name}" if name != ".tmp-a-0123" else "folder/x", b"")
    objects.fs.pipe_file(f"{objects.root}/folder/.tmp-a-0123", b"left by a killed writer")
    assert objects.names("folder") == [".hidden", "a", "b", "c", "x"]
    assert objects.names("") == ["folder"]


def test_a_name_published_a_moment_ago_is_listed(objects: StoreObjects) -> None:
    for number in range(3):
        objects.publish(f"folder/{number}", b"")
        assert objects.names("folder") == [str(n) for n in range(number + 1)]


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b", "a//b", "s3://x"])
def test_no_key_reaches_outside_the_store(objects: StoreObjects, key: str) -> None:
    for act in (objects.read, objects.names, objects.path, lambda key: objects.publish(key, b"x")):
        with pytest.raises(StoreError, match="not trusted"):
            act(key)


def test_objects_can_be_sent_to_another_process(objects: StoreObjects) -> None:
    objects.publish(KEY, b"first")
    again = pickle.loads(pickle.dumps(objects))  # noqa: S301
    assert again == objects
    assert again.read(KEY) == b"first"


def test_a_protocol_that_is_not_installed_is_named() -> None:
    with pytest.raises(StoreAccess, match="nosuchprotocol://x"):
        StoreObjects.at("nosuchprotocol://x")


@pytest.mark.parametrize("unnamed", [True, False])
def test_of_threads_that_race_for_a_name_exactly_one_wins_and_its_bytes_stand(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    if not unnamed:
        refuse_unnamed_files(monkeypatch, errno.EOPNOTSUPP)
    threads = 8
    with ThreadPoolExecutor(threads) as pool:
        for round_number in range(20):
            start = threading.Barrier(threads)

            def race(number: int, start: threading.Barrier = start, key: str = f"k/{round_number}") -> bool:
                start.wait()
                return local.publish(key, bytes([number]) * 10_000)

            won = list(pool.map(race, range(threads)))
            assert won.count(True) == 1
            assert local.read(f"k/{round_number}") == bytes([won.index(True)]) * 10_000
    assert len(all_objects(local)) == 20


RACER = """
import sys
from softcask.pipeline.store.access.objects import StoreObjects
objects, number = StoreObjects.at(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print("".join(str(int(objects.publish(f"k/{n}", bytes([number]) * 1000))) for n in range(200)))
"""


def test_of_processes_that_race_for_names_exactly_one_wins_each(local: StoreObjects) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, local.uri, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].strip() for racer in racers]
    for number in range(200):
        assert sorted(row[number] for row in won) == ["0", "1"]
        winner = [row[number] for row in won].index("1")
        assert local.read(f"k/{number}") == bytes([winner]) * 1000


WRITER = """
import os, sys
from softcask.pipeline.store.access import objects as module
if sys.argv[2] == "named":
    del os.O_TMPFILE
objects = module.StoreObjects.at(sys.argv[1])
print("ready", flush=True)
for number in range(10**6):
    objects.publish(f"k/{number}", bytes([number % 251]) * (1 << 20))
    print(number, flush=True)
"""


@pytest.mark.parametrize("how", ["unnamed", "named"])
def test_a_writer_killed_at_any_moment_leaves_whole_objects_only(local: StoreObjects, how: str) -> None:
    for seen in (0, 1, 5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, local.uri, how], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(1 + seen):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)  # wherever it is by now: what is asserted holds at every moment
        writer.wait()
        writer.stdout.close()
        for key, data in all_objects(local).items():
            if how == "named" and "/.tmp-" in key:
                assert key.rsplit("/", 1)[-1] not in local.names("k")
                continue
            assert data == bytes([int(key.removeprefix("k/")) % 251]) * (1 << 20)


def killed_in_the_middle(local: StoreObjects, how: str) -> dict[str, bytes]:
    """What stands after a writer was killed with half of an object written."""
    script = WRITER.replace(
        "objects = module", "real = os.write\nos.write = half\nobjects = module", 1
    ).replace(
        "if sys.argv",
        "def half(descriptor, data):\n"
        "    if len(data) > 9999:\n"
        "        real(descriptor, data[: len(data) // 2])\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return real(descriptor, data)\n"
        "if sys.argv",
        1,
    )
    killed = subprocess.run([sys.executable, "-c", script, local.uri, how], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return all_objects(local)


def test_a_writer_killed_in_the_middle_of_an_object_leaves_nothing_of_it(local: StoreObjects) -> None:
    assert killed_in_the_middle(local, "unnamed") == {}
    assert local.publish("k/0", b"again")


def test_where_files_must_have_names_a_killed_writer_leaves_a_temporary_only(local: StoreObjects) -> None:
    (left,) = killed_in_the_middle(local, "named")
    assert left.startswith("k/.tmp-")
    assert local.names("k") == []
    assert local.publish("k/0", b"again")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_where_unnamed_files_are_refused_a_temporary_one_does(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse_unnamed_files(monkeypatch, code)
    assert local.publish(KEY, b"first")
    assert not local.publish(KEY, b"second")
    assert all_objects(local) == {KEY: b"first"}


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "no space left"), (errno.EIO, "could")]
)
def test_a_full_disk_is_said_to_be_full_and_leaves_nothing(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch, code: int, said: str, unnamed: bool
) -> None:
    if not unnamed:
        refuse_unnamed_files(monkeypatch, errno.EOPNOTSUPP)
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 1000:
            raise OSError(code, os.strerror(code))
        return real(descriptor, data[:500])

    local.replace("other", b"committed before")
    monkeypatch.setattr(os, "write", full)
    for write in (local.publish, local.replace):
        with pytest.raises(StoreAccess, match=f"{said}.*{KEY}"):
            write(KEY, bytes(1200))
    assert all_objects(local) == {"other": b"committed before"}


def test_no_permission_is_said_with_what_to_check(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(
        StoreAccess, match=rf"no permission to write {KEY} .*credentials or the folder's owner"
    ):
        local.publish(KEY, b"x")


def test_a_filesystem_without_hard_links_is_said_to_have_none(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StoreAccess, match="no hard links.*Keep the store on one that has them"):
        local.publish(KEY, b"x")
    assert all_objects(local) == {}


def test_a_place_below_a_regular_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for uri in (tmp_path / "file", tmp_path / "file" / "store"):
        objects = StoreObjects.at(str(uri))
        for act in (objects.publish, objects.replace):
            with pytest.raises(StoreAccess, match=KEY):
                act(KEY, b"x")
    assert (tmp_path / "file").read_text() == "in the way"


def test_writes_that_are_cut_short_are_gone_on_with(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, data = os.write, os.urandom(2500)
    monkeypatch.setattr(os, "write", lambda descriptor, rest: real(descriptor, rest[:1000]))
    local.publish(KEY, data)
    assert local.read(KEY) == data


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_published_object_is_synced_and_so_is_every_folder_that_leads_to_it(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    """What a power cut must not undo: the bytes, the name, and the names of folders made for it."""
    if not unnamed:
        refuse_unnamed_files(monkeypatch, errno.EOPNOTSUPP)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    local.publish("a/b/c", b"x")
    root = local.root
    file, *folders = synced
    assert "tmp" in file or file.startswith(f"{root}/a/b/")
    assert set(folders) | {file} >= {f"{root}/a/b", f"{root}/a", root, str(Path(root).parent)}
    synced.clear()
    local.publish("a/b/d", b"x")
    assert synced[1:] == [f"{root}/a/b"]


def test_a_name_found_taken_is_synced_before_anything_is_built_on_it(
    local: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may not have come to that yet, and a receipt must not outlast what it speaks of."""
    local.publish("a/b", b"x")
    synced: list[Path] = []
    monkeypatch.setattr(local_objects, "sync_folder", synced.append)
    assert not local.publish("a/b", b"x")
    assert synced == [Path(local.root) / "a"]


def test_free_space_is_told_before_the_store_is_made(local: StoreObjects) -> None:
    free = local.free_bytes()
    assert free is not None and free > 0
    assert StoreObjects.at("memory://x").free_bytes() is None


def test_no_more_is_read_than_was_committed_and_a_byte(
    objects: StoreObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ObjectRecord.of(KEY, b"committed")
    objects.replace(KEY, b"committed")
    assert objects.read_recorded(record) == b"committed"
    asked: list[tuple[int, int]] = []
    real = objects.fs.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        asked.append((start, end))
        return real(path, start=start, end=end)

    def read_file(path: Path, start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return local_objects.read_file(path, start, stop)

    monkeypatch.setattr(objects.fs, "cat_file", cat_file)
    monkeypatch.setattr("softcask.pipeline.store.access.objects.read_file", read_file)
    objects.replace(KEY, b"committed and a great deal more")
    with pytest.raises(CorruptObject, match=f"{KEY} has more than the 9 bytes"):
        objects.read_recorded(record)
    assert asked == [(0, 10)]
    objects.replace(KEY, b"commit")
    with pytest.raises(CorruptObject, match=f"{KEY} has 6 bytes, committed with 9"):
        objects.read_recorded(record)


def test_a_record_that_lies_about_a_size_makes_nobody_make_room_for_it(objects: StoreObjects) -> None:
    objects.replace(KEY, b"small")
    with pytest.raises(CorruptObject, match=f"{KEY} has 5 bytes, committed with {2**47}"):
        objects.read_recorded(ObjectRecord(key=KEY, size=2**47, crc32c="00000000"))


def test_an_object_of_no_bytes_that_was_committed_is_read(objects: StoreObjects) -> None:
    objects.replace(KEY, b"")
    assert objects.read_recorded(ObjectRecord.of(KEY, b"")) == b""


class ClientError(Exception):
    """As botocore's: what the server answered is in `response`."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code}) when calling the PutObject operation")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class Bucket(AbstractFileSystem):
    """An object store whose conditional create fails as it is told to."""

    protocol: ClassVar[Any] = ("s3", "s3a")
    cachable = False

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        super().__init__()
        self.error, self.cause = error, cause

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        assert mode == "create"
        assert options["chunksize"] >= 1 << 30  # else s3fs uploads in parts
        raise self.error from self.cause


def bucket(error: Exception, cause: Exception | None = None) -> StoreObjects:
    once = Retries(attempts=1)
    return StoreObjects("s3://bucket/store", Bucket(error, cause), "bucket/store", retries=once)


@pytest.mark.parametrize(("code", "status"), [("PreconditionFailed", 412), ("412", 412)])
def test_a_name_that_an_object_store_says_is_taken_is_taken(code: str, status: int) -> None:
    answer = ClientError(code, status)
    assert not bucket(OSError(errno.EIO, "translated"), answer).publish(KEY, b"x")
    assert not bucket(answer).publish(KEY, b"x")
    assert not bucket(FileExistsError(KEY)).publish(KEY, b"x")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ConditionalRequestConflict", 409),
        ("OperationAborted", 409),
        ("SlowDown", 503),
        ("NoSuchBucket", 404),
    ],
)
def test_what_else_an_object_store_answers_is_no_name_that_is_taken(code: str, status: int) -> None:
    answer = ClientError(code, status)
    for objects in (bucket(OSError(errno.EIO, "translated"), answer), bucket(answer)):
        with pytest.raises(StoreAccess, match=KEY):
            objects.publish(KEY, b"x")


class LookThenWrite(MemoryFileSystem):
    """A filesystem that makes objects as fsspec does by default."""

    protocol = "sftp"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]


def test_where_names_cannot_be_taken_in_one_step_a_store_is_read_and_not_written() -> None:
    fs = LookThenWrite()
    fs.pipe_file("/store/softcask.json", b"copied there")
    objects = StoreObjects("sftp://host/store", fs, "/store")
    assert objects.read("softcask.json") == b"copied there"
    assert objects.names("") == ["softcask.json"]
    for write in (
        lambda: objects.publish(KEY, b"x"),
        lambda: objects.replace(KEY, b"x"),
        lambda: objects.remove(KEY),
    ):
        with pytest.raises(StoreAccess, match="cannot write to sftp://host/store: 'sftp'.*reading works"):
            write()
    assert all_objects(objects) == {"softcask.json": b"copied there"}


@pytest.mark.parametrize("uri", ["dir::memory://x", "simplecache::memory://x"])
def test_what_stands_between_a_filesystem_and_its_names_is_not_written_through(uri: str) -> None:
    with pytest.raises(StoreAccess, match="cannot write|cannot open"):
        StoreObjects.at(uri).publish(KEY, b"x")
