"""`softcask verify`: read every object of a store and compare it with what was committed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.store.care.verify import VerifyReport

EXAMPLES = "Examples:\n\nsoftcask verify STORE\n\nsoftcask verify s3://bucket/store --json"


def verify(store: StoreUri, as_json: Json = False) -> None:
    """Check every byte of a store against its checksums.

    Exits with 1 when a problem is found; each names its object.
    """
    from softcask.pipeline.store.care.verify import verify as check

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
        console.note("`softcask repair RUN.toml --check` shows what can be done, without --check it does it")
    else:
        console.say(f"{store} is sound: {read} match what was committed")
    if report.orphans:
        console.say(
            f"besides, {console.many(report.orphans, 'object')} of no commit: work under way, or left by one "
            "that died; the next precompute takes what it needs"
        )
