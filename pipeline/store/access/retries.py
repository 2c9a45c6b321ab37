"""Try again what may pass: requests to an object store that failed for a reason of the moment.

This is the only layer that retries an S3 request (the drivers' own are switched off), so attempts and seconds
have one clear end.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from softcask.pipeline.store.access.answers import answer_of, may_pass

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how long to try: exponential backoff with full jitter, so that many clients spread out.

    Attributes:
        attempts: Most attempts of one request.
        deadline: Seconds from the first attempt after which none is begun.
        first_wait: Longest wait before the second attempt, in seconds; doubled for each further one.
        longest_wait: Seconds that no wait exceeds.
        sleep: Waits so many seconds.
        clock: Seconds from any fixed moment.
        jitter: A number from 0 to 1: the share of the longest wait to take.
    """

    attempts: int = 10
    deadline: float = 180.0
    first_wait: float = 0.2
    longest_wait: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def run(self, request: Callable[[], T]) -> T:
        """What `request` returns, once it does.

        Raises:
            Exception: What it raised last, noted with the attempts made, if that may pass; at once otherwise.
        """
        begun, attempt = self.clock(), 0
        while True:
            attempt += 1
            try:
                return request()
            except Exception as error:
                if not may_pass(error):
                    raise
                wait = self.jitter() * min(self.longest_wait, self.first_wait * 2 ** (attempt - 1))
                spent = self.clock() - begun
                if attempt == self.attempts or spent + wait > self.deadline:
                    error.add_note(f"given up after {attempt} attempts in {spent:.0f} s")
                    raise
                # The third failure in a row is worth a word to whoever waits.
                level = logging.WARNING if attempt > 2 else logging.INFO
                what = str(answer_of(error)) or type(error).__name__
                _LOG.log(level, "the store's server: %s (attempt %d), again in %.1f s", what, attempt, wait)
                self.sleep(wait)
