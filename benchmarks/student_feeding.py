"""What feeding a student costs: beside tensors in memory, beside the live teachers, beside other loaders.

A training step that softcask feeds is measured beside the same step fed from tensors in memory, which is all
that any loader could wish to reach; and beside a loop that runs the teachers, which is what soft targets
replace. The loader alone is measured beside others over the same rows, shuffled, by this process and by
workers. All by turns, round after round; figures are medians.

    make bench-student
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import student_feeding_loaders as loaders
import student_feeding_steps as steps
from measuring import command, machine, refuse_if_busy, scratch
from tables import Report


def main() -> None:
    """Print the report; with `--out`, write it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=60_000, help="rows that students train on")
    parser.add_argument("--loader-rows", type=int, default=1 << 14, help="rows that loaders read")
    parser.add_argument("--teachers", type=int, default=10, help="nets of the live ensemble")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, help="torch's; as torch has them by default")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to read from")
    parser.add_argument("--out", type=Path, help="folder to write student_feeding.md to")
    parser.add_argument("--force", action="store_true", help="measure though others use the machine")
    arguments = parser.parse_args()
    if not arguments.force:
        refuse_if_busy()
    started = time.monotonic()
    report = Report("Feeding a student", f"`{command()}`", f"{machine()}.")
    report.note(
        f"Medians of {arguments.rounds} rounds"
        + (", measured while others used the machine." if arguments.force else ".")
    )
    with scratch(arguments.scratch) as folder:
        goals = steps.measured(
            report,
            folder / "steps",
            rows=arguments.rows,
            teachers=arguments.teachers,
            workers=arguments.workers,
            threads=arguments.threads,
            rounds=arguments.rounds,
        )
        goals += loaders.measured(
            report,
            folder / "loaders",
            rows=arguments.loader_rows,
            workers=arguments.workers,
            rounds=arguments.rounds,
        )
    report.goals(goals)
    print(report.text())
    print(f"{time.monotonic() - started:.0f} s")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "student_feeding.md").write_text(report.text())


if __name__ == "__main__":
    main()
