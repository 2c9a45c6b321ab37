"""`python -m examples.paper`: a section, several, or all; what has a record is not done again."""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.paper import __doc__ as about
from examples.paper.plots import draw
from examples.paper.report import outcomes, page, write
from examples.paper.rows import Mnist
from examples.paper.runs import label
from examples.paper.sections import SECTIONS
from examples.paper.workshop import HERE, Workshop


def main() -> None:
    """Do what is missing, then write the page."""
    options = _options()
    sections = {name: section.tiny() if options.tiny else section for name, section in SECTIONS.items()}
    folder = options.folder
    workshop = Workshop(mnist=Mnist(options.data), results=folder / "results", cache=folder / "cache")
    chosen = sections if options.sections in ([], ["all"]) else dict.fromkeys(options.sections)
    for name in chosen:
        for run in sections[name].runs():
            record = workshop.record(run)
            if record is None and options.only in label(run) and not options.list:
                record = workshop.carry_out(run)
            told = f"{record.errors:,} errors, {record.cpu_seconds:,.0f} CPU s" if record else "not yet run"
            print(f"{name:12} {label(run):32} {told}", flush=True)
    if not options.list:
        docs = folder if options.folder != HERE else HERE.parents[1] / "docs"
        found = {name: outcomes(section, workshop) for name, section in sections.items()}
        draw(docs / "paper.png", found)
        write(docs / "paper.md", page(list(sections.values()), found, "paper.png"))
        print(f"tables and picture: {docs / 'paper.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper", description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    names = ["all", *SECTIONS]
    parser.add_argument("sections", nargs="*", choices=[[], *names], metavar="SECTION", help=", ".join(names))
    parser.add_argument("--only", default="", metavar="TEXT", help="of these, runs whose name has it in it")
    parser.add_argument("--list", action="store_true", help="show what there is; do nothing")
    parser.add_argument("--tiny", action="store_true", help="one epoch, one seed, small nets: to try the way")
    parser.add_argument(
        "--data", type=Path, default=HERE.parent / "mnist" / "data", help="MNIST's four files"
    )
    parser.add_argument(
        "--folder", type=Path, default=HERE, help="where results/ and cache/ are, and, if not here, the page"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
