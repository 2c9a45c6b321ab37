"""How fast a run is of late, and when it will be done."""

from __future__ import annotations

from collections import deque

_WINDOW = 120.0
"""Seconds that count as of late."""

_FEWEST = 8
"""Reports that are looked back on at least, where one takes long."""

_MOST = 4096


class Rates:
    """Rows and seconds of forward passes of the reports of late."""

    def __init__(self, now: float) -> None:
        """Nothing was reported yet.

        Args:
            now: A monotonic clock, seconds; all later times are by the same.
        """
        self._reports: deque[tuple[float, float, float]] = deque()
        self._since = now
        self._rows = self._seconds = 0.0

    def add(self, now: float, rows: float, forward_seconds: float) -> None:
        """A task ended.

        Args:
            now: When.
            rows: Its rows, times teachers.
            forward_seconds: What its forward passes took.
        """
        self._reports.append((now, rows, forward_seconds))
        self._rows, self._seconds = self._rows + rows, self._seconds + forward_seconds
        while len(self._reports) > (_FEWEST if now - self._reports[0][0] > _WINDOW else _MOST):
            self._since, rows, forward_seconds = self._reports.popleft()
            self._rows, self._seconds = self._rows - rows, self._seconds - forward_seconds

    def read(self, now: float) -> tuple[float, float]:
        """(rows, seconds of forward passes) a second, of late; both 0 where nothing was reported."""
        spent = now - self._since
        if not self._reports or spent <= 0:
            return 0.0, 0.0
        return max(self._rows, 0.0) / spent, max(self._seconds, 0.0) / spent
