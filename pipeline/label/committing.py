"""Commit what teacher passes have cost, and where the disk is full wait for room with the logits in hand.

A unit whose commit fails is computed again, as after any error. A full disk is the one error after which that
helps nobody: the passes would be paid for once more to meet the same disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from softcask.storage_schemas.errors import StoreFull

_LOG = logging.getLogger(__name__)
_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds: a minute in all, in which somebody else's files may go, or a quota be raised."""

T = TypeVar("T")


def with_room(
    commit: Callable[[], T], what: str, closed: threading.Event, waits: Sequence[float] = _WAITS
) -> T:
    """What `commit` returns, once the disk has room for it.

    Args:
        commit: Commits one unit; safe to call again.
        what: The unit, for the log.
        closed: Set when nothing is waited for any more.
        waits: Seconds to wait after each attempt but the last.

    Raises:
        StoreFull: There was no room at the last attempt either, or `closed` was set.
    """
    for wait in waits:
        try:
            return commit()
        except StoreFull as error:
            if closed.is_set():
                raise
            _LOG.warning(
                "no space left to commit %s: its logits are kept, again in %g s (%s)", what, wait, error
            )
            closed.wait(wait)
    return commit()
