"""A full disk: what was computed waits for room, and is thrown away only when there is none in the end."""

from __future__ import annotations

import errno
import threading

import pytest

from softcask.pipeline.label.committing import with_room
from softcask.pipeline.store.access.explained import explained
from softcask.storage_schemas.errors import StoreAccess, StoreFull

AT_ONCE = (0.0, 0.0, 0.0)


class Disk:
    """Refuses the first few commits."""

    def __init__(self, refusals: int, number: int = errno.ENOSPC) -> None:
        self.refusals, self.number, self.attempts = refusals, number, 0

    def commit(self) -> str:
        self.attempts += 1
        with explained("write", "unit 0", local=True):
            if self.attempts <= self.refusals:
                raise OSError(self.number, "refused")
        return "receipt"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_commit_that_found_the_disk_full_is_made_when_there_is_room(number: int) -> None:
    disk = Disk(refusals=3, number=number)
    assert with_room(disk.commit, "unit 0", threading.Event(), AT_ONCE) == "receipt"
    assert disk.attempts == 4


def test_a_disk_that_stays_full_is_told_of_after_the_last_attempt() -> None:
    disk = Disk(refusals=99)
    with pytest.raises(StoreFull, match="no space left to write unit 0"):
        with_room(disk.commit, "unit 0", threading.Event(), AT_ONCE)
    assert disk.attempts == len(AT_ONCE) + 1


def test_any_other_error_is_raised_at_once() -> None:
    disk = Disk(refusals=1, number=errno.EIO)
    with pytest.raises(StoreAccess, match="refused"):
        with_room(disk.commit, "unit 0", threading.Event(), AT_ONCE)
    assert disk.attempts == 1


def test_nothing_is_waited_for_once_the_labeller_is_closed() -> None:
    disk, closed = Disk(refusals=99), threading.Event()
    closed.set()
    with pytest.raises(StoreFull):
        with_room(disk.commit, "unit 0", closed, (3600.0,))
    assert disk.attempts == 1


def test_a_wait_ends_when_the_labeller_is_closed_and_the_commit_is_tried_once_more() -> None:
    closed = threading.Event()
    disk = Disk(refusals=1)

    def commit() -> str:
        threading.Timer(0.01, closed.set).start()
        return disk.commit()

    assert with_room(commit, "unit 0", closed, (3600.0,)) == "receipt"
