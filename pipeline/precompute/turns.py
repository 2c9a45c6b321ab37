"""Whether this driver may go on while others are at work on the store.

Drivers that cooperate need nothing of this: units are published once, whoever labels them. A driver that
wants the store for itself refuses to begin beside others, and others refuse to begin beside it. Everyone says
that it is there before it looks for others, so that of two that begin at one moment at least one sees the
other; and of two that want the store for themselves, a claim that only one of them can make decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import (
    BEAT_EVERY,
    STALE_AFTER,
    age_of,
    read_runs,
    run_names,
    state_of,
)
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, StoreBusy, StoreNotFound
from softcask.storage_schemas.runs import RunClaim, RunProgress

_LOG = logging.getLogger(__name__)

OtherDrivers = Literal["cooperate", "refuse"]

_WATCHED = 2 * BEAT_EVERY
"""Seconds that a driver which seems dead is given to say a word: clocks may differ."""

_LOOKED_AT = 100
"""Newest runs among which those at work are looked for, where nothing but time is at stake."""

_FARTHEST_CLOCKS = 24 * 3600.0
"""Seconds by which they may; of who was silent for longer, no sign of life is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One driver's wish to work on a store.

    Attributes:
        objects: The store.
        run: Name of its run.
        host: Its machine.
        other_drivers: What it does about others.
        force: Whether it begins whatever others say.
        now: The time.
        wait: Passes the given seconds.
    """

    objects: StoreObjects
    run: str
    host: str
    other_drivers: OtherDrivers = "cooperate"
    force: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait: Callable[[float], None] = time.sleep

    def look(self) -> None:
        """Before anything is written.

        Raises:
            StoreBusy: Another driver is at work, and it or this one wants the store for itself.
        """
        if not self.force:
            self._refuse(self._alive() if self.other_drivers == "refuse" else self._claimant())

    def take(self) -> None:
        """Once this driver has said that it is there.

        Raises:
            StoreBusy: As `look` does.
        """
        if self.other_drivers == "refuse":
            self._claim()
        elif not self.force:
            self._refuse(self._claimant())

    def rank(self) -> int:
        """How many of the drivers at work came before this one; who began at one moment differs, too."""
        runs = read_runs(self.objects, run_names(self.objects)[-_LOOKED_AT:])
        others = (run.progress for run in runs if run.progress is not None and run.name < self.run)
        return sum(state_of(each, self.now()) == "at work" for each in others)

    def _claim(self) -> None:
        """Take the next number; then see whether anybody who needs none is at work."""
        number = 0
        while True:
            newest = max([number, *_claims(self.objects)])
            if not self.force:
                self._refuse(self._claimant(newest))
            number = newest + 1
            claim = RunClaim(number=number, run=self.run, host=self.host, claimed=self.now().isoformat())
            if self.objects.publish(keys.claim(number), claim.to_bytes()):
                break
        if not self.force:
            # Who refuses, too, is held by the claim, and may be about to end by it.
            self._refuse([run for run in self._alive() if run.other_drivers == "cooperate"])

    def _claimant(self, newest: int | None = None) -> list[RunProgress]:
        """The run that holds the newest claim, if it is another and lives."""
        newest = max(_claims(self.objects), default=0) if newest is None else newest
        claim = self._read_claim(newest) if newest else None
        return self._alive([claim.run] if claim is not None else [])

    def _read_claim(self, number: int) -> RunClaim | None:
        """A claim; one that is damaged is nobody's."""
        key = keys.claim(number)
        try:
            return RunClaim.from_bytes(self.objects.read(key), key)
        except (CorruptObject, StoreNotFound):
            return None

    def _alive(self, runs: Iterable[str] | None = None) -> list[RunProgress]:
        """What others of these runs say whose drivers are at work; None: of all runs.

        Those that seem dead by the clock alone are watched for a while, all at once.
        """
        found = (run.progress for run in read_runs(self.objects, runs))
        others = [each for each in found if each is not None and each.run != self.run]
        states = {each.run: state_of(each, self.now()) for each in others}
        doubtful = [each for each in others if states[each.run] == "silent" and self._may_live(each)]
        if doubtful:
            _LOG.info("waiting %.0f s for a sign of life of %s", _WATCHED, [each.run for each in doubtful])
            self.wait(_WATCHED)
        beats = {each.run: each.beat for each in doubtful}
        later = (run.progress for run in read_runs(self.objects, beats))
        moved = [each for each in later if each and not each.outcome and each.beat != beats[each.run]]
        return [each for each in others if states[each.run] == "at work"] + moved

    def _may_live(self, progress: RunProgress) -> bool:
        return abs(age_of(progress, self.now())) < _FARTHEST_CLOCKS

    def _refuse(self, others: Sequence[RunProgress]) -> None:
        if not others:
            return
        other = others[0]
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        heard = f"{max(age_of(other, self.now()), 0):.0f} s ago"
        wants = "this run" if self.other_drivers == "refuse" else "it"
        number = f", process {other.process[1]}" if other.process else ""
        raise StoreBusy(
            f"another driver is at work on {self.objects.uri}, and {wants} wants the store for itself "
            f'(executor.other_drivers = "refuse"): run {other.run} on {other.host}{number}, last heard of '
            f"{heard}, at {other.stage}: {other.done:,} of {other.total:,}{more}. "
            f"Wait for its end (softcask status {self.objects.uri} --watch) and run again; or begin beside "
            "it with --force: both then label, and nothing is lost. A driver that was killed is in nobody's "
            f"way {STALE_AFTER:.0f} s after it was last heard of."
        )


def _claims(objects: StoreObjects) -> list[int]:
    names = (name.removesuffix(".json") for name in objects.names(keys.CLAIMS) if name.endswith(".json"))
    return [int(name) for name in names if len(name) == 8 and name.isascii() and name.isdigit()]
