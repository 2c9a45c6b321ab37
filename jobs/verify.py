"""`softcask verify`: read every object of a store and compare it with what was committed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.store.verify import VerifyReport

_OF_UNIT = re.compile(r"teachers/([^/]+)/(?:logits|stats)/([^/]+)/([^/]+)/(?:.*/c/|part-)(\d+)")
_RECEIPT = re.compile(r"teachers/[^/]+/commits/")
_MAX_RECEIPTS = 8
EXAMPLES = "Examples:\n\nsoftcask verify STORE\n\nsoftcask verify s3://bucket/store --json"


def verify(store: StoreUri, as_json: Json = False) -> None:
    """Check every byte of a store against its checksums.

    Exits with 1 when a problem is found; each names its object.
    """
    from softcask.pipeline.store.verify import verify as check

    with Bars() as bars:

        def watch(done: int, total: int, read: int) -> None:
            bars.show("verify", done, total, unit="objects", note=console.size(read))

        report = check(store, progress=watch)
    if as_json:
        console.emit(asdict(report))
    else:
        _show(report, store)
    if report.problems:
        raise typer.Exit(1)


def _show(report: VerifyReport, store: str) -> None:
    for problem in report.problems:
        message = problem.message if problem.key in problem.message else f"{problem.key}: {problem.message}"
        console.complain(message)
    read = f"{console.many(report.objects, 'object')}, {console.size(report.bytes)}"
    if report.problems:
        console.complain(f"{console.many(len(report.problems), 'problem')} in {store} ({read} read)")
        for advice in _advice(report):
            console.note(advice)
    else:
        console.say(f"{store} is sound: {read} match what was committed")
    if report.orphans:
        console.say(
            f"besides, {console.many(report.orphans, 'object')} of no commit: work under way, or left by one "
            "that died; the next precompute takes what it needs"
        )


def _advice(report: VerifyReport) -> Iterator[str]:
    """How to mend what the next precompute can make again."""
    found = [problem.key for problem in report.problems]
    receipts = sorted({receipt for key in found if (receipt := _receipt_of(key))})
    if receipts:
        more = f" and {len(receipts) - _MAX_RECEIPTS:,} more" if len(receipts) > _MAX_RECEIPTS else ""
        yield (
            "to have damaged units made again, remove their receipts and run the same precompute: "
            f"{', '.join(receipts[:_MAX_RECEIPTS])}{more}"
        )
    if any(key.startswith("catalog/") for key in found):
        yield "to have the catalog made again, remove the folder catalog and run the same precompute"


def _receipt_of(key: str) -> str | None:
    if match := _OF_UNIT.match(key):
        teacher, segment, view, index = match.groups()
        return f"teachers/{teacher}/commits/{segment}-{view}-{int(index):08d}.json"
    return key if _RECEIPT.match(key) else None
