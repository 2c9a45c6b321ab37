"""What a student loses by a codec, at equal bytes: softcask's and others', on three teachers.

Bytes are those on disk: softcask's of the Parquet parts and Zarr shards of a unit of 4,096 rows, without what
is kept once, which has a table of its own; others' packed as they pack them (see `rivals/`). Everything is
judged on rows that nothing was fitted on. Nothing here depends on how busy the machine is.

    SOFTCASK_DISTILLKIT=/path/to/checkout python benchmarks/codec_fidelity.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ours
from judging import BATCHES, GRADIENT_TEMPERATURES, Judge, Verdict
from logit_sources import SOURCES, LogitSource
from rivals import distillkit, megatron, renormalised, sampling, tinyvit
from rivals.base import Kept, Missing, Rows

from softcask.storage_schemas.codecs.fidelity import TEMPERATURES
from softcask.storage_schemas.codecs.lowrank.calibration import Calibration

BUDGETS = (64, 128, 256, 512)
KL_ROWS = 400
LARGE = 10_000
"""From this many classes on, dense codecs are left out: nobody would keep them."""


def rivals_at(rows: Rows, budget: int, missing: list[str]) -> Iterator[Kept]:
    """What others keep in `budget` bytes a row; what is not here is noted in `missing`."""
    try:
        yield from distillkit.variants(rows, budget)
    except Missing as reason:
        missing.append(str(reason))
    for rival in (megatron, tinyvit, sampling, renormalised):
        if (kept := rival.kept(rows, budget)) is not None:
            yield kept


def ours_at(fits: tuple[Calibration, ...], rows: Rows, budget: int) -> Iterator[Kept]:
    """What softcask keeps in `budget` bytes a row."""
    for calibration in fits:
        yield ours.lowrank(calibration, rows, budget)
    if (kept := ours.topk(rows, budget)) is not None:
        yield kept


def verdicts(
    source: LogitSource, budgets: tuple[int, ...], missing: list[str]
) -> Iterator[tuple[int | None, Verdict]]:
    """Every codec at every budget, and the dense ones at none."""
    rows, fits = Rows.of(source.judged_NC), ours.calibrations(source)
    judge = Judge(logits_NC=source.judged_NC[: BATCHES[-1]], features_ND=source.features_ND, kl_rows=KL_ROWS)
    for budget in budgets:
        for kept in itertools.chain(ours_at(fits, rows, budget), rivals_at(rows, budget, missing)):
            yield budget, _judged(kept, judge)
    if rows.classes <= LARGE:
        for kept in ours.dense(rows):
            yield None, _judged(kept, judge)


def _judged(kept: Kept, judge: Judge) -> Verdict:
    started = time.perf_counter()
    verdict = judge.verdict(kept)
    means = " ".join(f"{verdict.kl[temperature][0]:.2g}" for temperature in TEMPERATURES)
    print(
        f"{kept.bytes_a_row:8.1f} B {kept.name:48s} {means} ({time.perf_counter() - started:.0f} s)",
        flush=True,
    )
    return verdict


def kl_table(found: list[tuple[int | None, Verdict]], part: int) -> list[str]:
    """KL by temperature: 0 the mean, 1 the 99th percentile, 2 the largest."""
    heads = ["budget", "codec", "bytes a row", *(f"T={temperature:g}" for temperature in TEMPERATURES)]
    lines = _header(heads)
    for budget, verdict in found:
        numbers = [_number(verdict.kl[temperature][part]) for temperature in TEMPERATURES]
        lines.append(_row([_budget(budget), verdict.kept.name, f"{verdict.kept.bytes_a_row:.1f}", *numbers]))
    return lines


def gradient_table(found: list[tuple[int | None, Verdict]]) -> list[str]:
    """Relative error of a batch's gradient."""
    heads = ["budget", "codec", *(f"T={temperature:g}" for temperature in GRADIENT_TEMPERATURES)]
    lines = _header(heads)
    for budget, verdict in found:
        cells = [
            " / ".join(_number(verdict.gradient[temperature][size]) for size in BATCHES)
            for temperature in GRADIENT_TEMPERATURES
        ]
        lines.append(_row([_budget(budget), verdict.kept.name, *cells]))
    return lines


def best_rival_table(found: list[tuple[int | None, Verdict]]) -> list[str]:
    """How far below the others `lowrank` lies: their least mean KL at each temperature over ours."""
    heads = ["budget", "codec", "against", *(f"T={temperature:g}" for temperature in TEMPERATURES)]
    lines = _header(heads)
    for budget in sorted({budget for budget, _ in found if budget is not None}):
        at = [verdict for of, verdict in found if of == budget]
        mine = [verdict for verdict in at if verdict.kept.name.startswith("lowrank")]
        theirs = [verdict for verdict in at if not verdict.kept.name.startswith(("lowrank", "topk"))]
        for against in ("DistillKit", ""):
            others = [verdict for verdict in theirs if verdict.kept.name.startswith(against)]
            for verdict in mine if others else ():
                ratios = [
                    f"{min(other.kl[temperature][0] for other in others) / verdict.kl[temperature][0]:.3g}"
                    for temperature in TEMPERATURES
                ]
                lines.append(_row([str(budget), verdict.kept.name, against or "best of all", *ratios]))
    return lines


def once_table(found: list[tuple[int | None, Verdict]], classes: int) -> list[str]:
    """What is kept once a teacher, and when it has paid for itself."""
    lines = _header(["budget", "codec", "kept once, bytes", "a row, bytes", "rows until it pays"])
    for budget, verdict in found:
        if kept_once := verdict.kept.once_bytes:
            saved = 2 * classes + 4 - verdict.kept.bytes_a_row
            cells = [
                f"{kept_once:,}",
                f"{verdict.kept.bytes_a_row:.1f}",
                f"{int(np.ceil(kept_once / saved)):,}",
            ]
            lines.append(_row([_budget(budget), verdict.kept.name, *cells]))
    return lines


def report(source: LogitSource, found: list[tuple[int | None, Verdict]], missing: list[str]) -> str:
    """One teacher's tables, as Markdown."""
    command = " ".join(["python", *sys.argv])
    found = sorted(found, key=lambda pair: pair[0] or sys.maxsize)
    parts = [
        f"# Codecs on {source.name}",
        f"`{command}`",
        f"{source.facts}; bytes over {len(source.judged_NC):,} rows, KL in nats over {KL_ROWS}, rows that "
        "nothing was fitted on. What is kept once is not in the bytes a row: see the last table. "
        "`inf`: the codec gives some class no probability.",
        *(f"Missing: {reason}" for reason in sorted(set(missing))),
        "## KL(teacher || kept), mean",
        "\n".join(kl_table(found, 0)),
        "## Others' least mean KL over ours",
        "Above 1, ours is lower. At each temperature the best of their variants.",
        "\n".join(best_rival_table(found)),
        "## Relative error of the gradient at a student's output layer",
        f"Batches of {' / '.join(f'{size:,}' for size in BATCHES)} rows; the student knows how frequent "
        "classes are and nothing else.",
        "\n".join(gradient_table(found)),
        "## KL, 99th percentile",
        "\n".join(kl_table(found, 1)),
        "## KL, largest",
        "\n".join(kl_table(found, 2)),
        "## Kept once a teacher",
        "It has paid for itself once that many rows lie as they do rather than as dense float16.",
        "\n".join(once_table(found, source.judged_NC.shape[1])),
    ]
    return "\n\n".join(parts) + "\n"


def _header(heads: list[str]) -> list[str]:
    return [_row(heads), _row(["---"] * 2 + ["---:"] * (len(heads) - 2))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _budget(budget: int | None) -> str:
    return "dense" if budget is None else str(budget)


def _number(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "inf"


def main() -> None:
    """Judge every codec on every teacher; with `--out`, write a file each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS)
    parser.add_argument("--out", type=Path, help="folder for a Markdown file a teacher")
    arguments = parser.parse_args()
    for name in arguments.sources:
        try:
            source = SOURCES[name]()
        except Missing as reason:
            print(f"missing: {reason}")
            continue
        print(f"{source.name}: {source.facts}", flush=True)
        missing: list[str] = []
        found: list[tuple[int | None, Verdict]] = []
        for verdict in verdicts(source, tuple(arguments.budgets), missing):
            found.append(verdict)
            if arguments.out:  # each time: an hour's work is not lost when the last of it fails
                (arguments.out / f"codecs_{name}.md").write_text(report(source, found, missing))
        if not arguments.out:
            print(report(source, found, missing))


if __name__ == "__main__":
    main()
