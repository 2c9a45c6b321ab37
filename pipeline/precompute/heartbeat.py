"""A thread that says at set times that its driver lives, while the driver waits for others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class Heartbeat:
    """Calls something again and again until it is stopped; an error of that is told once and ends nothing."""

    def __init__(self, beat: Callable[[], None], *, every: float) -> None:
        """Not started yet.

        Args:
            beat: What is called, from a thread of its own.
            every: Seconds between two calls.
        """
        self._beat, self._every = beat, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._complained = False

    def start(self) -> None:
        """Begin; the first call comes after the time between two."""
        self._thread.start()

    def stop(self) -> None:
        """No call begins after this; one that is under way is waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._beat()
            except Exception as error:
                level = logging.DEBUG if self._complained else logging.WARNING
                self._complained = True
                _LOG.log(level, "cannot say where the run stands; it goes on: %s", error)
