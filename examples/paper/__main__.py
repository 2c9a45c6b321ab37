"""`python -m examples.paper`: a section, several, or all; what has a record is not done again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from examples.paper import __doc__ as about
from examples.paper.findings import Section
from examples.paper.plots import draw
from examples.paper.report import outcomes, page, write
from examples.paper.rows import Mnist
from examples.paper.runs import label
from examples.paper.sections import SECTIONS
from examples.paper.workshop import HERE, Workshop
from softcask.storage_schemas.errors import SoftcaskError


def main() -> None:
    """Do what is missing; write the page after each section, and when stopped."""
    options = _options()
    sections = {name: section.tiny() if options.tiny else section for name, section in SECTIONS.items()}
    workshop = Workshop(
        mnist=Mnist(options.data), results=options.folder / "results", cache=options.folder / "cache"
    )
    docs = HERE.parents[1] / "docs" if options.folder == HERE else options.folder
    for name in options.sections or sections:
        if options.list:
            _tell(sections[name], workshop)
            continue
        try:
            _do(sections[name], workshop, options.only)
        finally:
            _write_page(sections, workshop, docs)


def _do(section: Section, workshop: Workshop, only: str) -> None:
    for run in section.runs():
        if only in label(run) and workshop.record(run) is None:
            workshop.carry_out(run)
    _tell(section, workshop)


def _tell(section: Section, workshop: Workshop) -> None:
    for run in section.runs():
        record = workshop.record(run)
        told = f"{record.errors:>6,} errors {record.cpu_seconds:>7,.0f} CPU s" if record else "   not yet run"
        print(f"{section.name:12} {label(run):32} {told}", flush=True)


def _write_page(sections: Mapping[str, Section], workshop: Workshop, docs: Path) -> None:
    found = {name: outcomes(section, workshop) for name, section in sections.items()}
    draw(docs / "paper.png", found)
    write(docs / "paper.md", page(list(sections.values()), found, "paper.png"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper", description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    names = ", ".join(SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"all of them, or some of {names}")
    parser.add_argument("--only", default="", metavar="TEXT", help="of these, runs whose name has it in it")
    parser.add_argument("--list", action="store_true", help="show what there is, and do nothing")
    parser.add_argument("--tiny", action="store_true", help="small nets, few steps, one seed: to try the way")
    parser.add_argument(
        "--folder", type=_path, default=HERE, help="of results/ and cache/, and of the page if it is not here"
    )
    parser.add_argument(
        "--data", type=_path, default=HERE.parent / "mnist" / "data", help="folder of MNIST's four files"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"there is no section {', '.join(unknown)}; there are {names}")
    if options.tiny and options.folder == HERE:
        parser.error("--tiny needs a --folder of its own: its records are not those of the paper")
    return options


def _path(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    try:
        main()
    except (SoftcaskError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run it again and it goes on from here")
