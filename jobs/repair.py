"""`softcask repair`: make a damaged store sound again, with the teachers and rows that it was made from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.precompute.repair import RepairReport
    from softcask.pipeline.precompute.results import Progress
    from softcask.pipeline.store.care.damage import Remedy

EXAMPLES = (
    "Examples:\n\nsoftcask repair run.toml --check\n\nsoftcask repair run.toml\n\n"
    "softcask repair run.toml --set executor.kind=serial --json"
)
_MEANINGS = {
    "restore": "make it again from what it follows from",
    "receipt": "make its receipt again from the catalog and the logits",
    "statistics": "make its statistics again from the logits",
    "label": "label its unit again",
    "seal": "seal the catalog anew",
    "aside": "rename it to KEY.aside",
    "wait": "judge it when its rows are whole",
    "none": "nothing that softcask can do",
}
_SHOWN = 20

ForgetDrops = Annotated[
    bool,
    typer.Option("--forget-drops", help="Of a lost catalog: seal all that stands, what was dropped too."),
]
Check = Annotated[bool, typer.Option("--check", help="Only show what is wrong and what would be done.")]


def repair(
    run: RunFile,
    check: Check = False,
    forget_drops: ForgetDrops = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Verify a store, and make again what is damaged or missing.

    Metadata, statistics, receipts and the catalog are made from what is whole; only units whose logits are
    lost are labelled again, by the run's teachers. Safe to run again. Exits with 1 when a problem is left.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.repair import Watch
    from softcask.pipeline.precompute.repair import repair as make_sound

    with console.answering(as_json), Bars() as bars:
        config = load_run(run, parse_overrides(settings or ()))

        def verifying(done: int, total: int, size: int) -> None:
            bars.show("verify", done, total, unit="objects", note=console.size(size))

        def mending(done: int, total: int) -> None:
            bars.show("mend", done, total, unit="objects")

        def labelling(progress: Progress) -> None:
            bars.show(progress.stage, progress.done, progress.total, unit="rows")

        watch = Watch(verify=verifying, mend=mending, label=labelling)
        report = make_sound(config, check=check, forget_drops=forget_drops, watch=watch)
    if as_json:
        console.emit(_answer(report, config.store.uri))
    else:
        _show(report, config.store.uri, check)
    if report.left or (check and report.forgotten):
        raise typer.Exit(1)


def _answer(report: RepairReport, store: str) -> dict[str, Any]:
    def plain(remedies: tuple[Remedy, ...]) -> list[dict[str, str]]:
        return [
            {
                "key": each.problem.key,
                "kind": each.problem.kind,
                "message": each.problem.message,
                "action": each.action,
                "advice": each.advice,
            }
            for each in remedies
        ]

    return {
        "store": store,
        "found": plain(report.found),
        "restored": list(report.restored),
        "aside": list(report.aside),
        "relabelled": [{"teacher": teacher, "unit": unit} for teacher, unit in report.relabelled],
        "left": plain(report.left),
        "generation": report.generation,
        "forgotten": report.forgotten,
        "verified": report.verified,
    }


def _show(report: RepairReport, store: str, check: bool) -> None:
    for each in report.found[:_SHOWN]:
        console.note(each.problem.message)
    if len(report.found) > _SHOWN:
        console.note(f"and {len(report.found) - _SHOWN:,} problems more: --json names all")
    counts = Counter(each.action for each in report.found)
    if counts:
        rows = [[_MEANINGS[action], f"{count:,}"] for action, count in sorted(counts.items())]
        console.show_table(["remedy", "objects"], rows)
    if report.relabelled:
        would = "would be labelled again" if check else "labelled again"
        console.say(f"{console.many(len(report.relabelled), 'unit')} {would}")
    for each in report.left if not check else ():
        console.complain(
            f"{each.problem.message}: {each.advice or 'it stays as it is until the rest is seen to'}"
        )
    if check and report.forgotten:
        console.complain(report.forgotten)
    if check and report.found:
        for each in report.left:
            if each.advice:
                console.complain(f"{each.problem.key}: {each.advice}")
        console.say("nothing was changed: run this without --check to repair")
    elif not report.left:
        done = "was sound already" if not report.found and not report.relabelled else "is sound again"
        console.say(f"{store} {done}: {console.many(report.verified, 'object')} match what was committed")
