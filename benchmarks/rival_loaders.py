"""Loaders that run elsewhere: in a Python of their own, whose packages are not ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from measuring import Cost, median
from numpy.typing import NDArray

PYTHON = "SOFTCASK_RIVALS_PYTHON"
LOADERS = ("datasets", "datasets, arrow", "litdata", "mosaicml-streaming", "webdataset")


def rivals(
    folder: Path, logits_RMC: NDArray[np.float16], rounds: int, *, workers: int = 0
) -> dict[str, tuple[Cost | str, Cost] | str]:
    """Costs in order and shuffled of the loaders that run elsewhere, or why there are none.

    Args:
        folder: To write in.
        logits_RMC: What each is given, and writes in its own format first.
        rounds: Rounds that count.
        workers: Processes that read ahead; then the order of the rows is not measured.
    """
    python = os.environ.get(PYTHON)
    if not python:
        return {name: f"missing ({PYTHON} is not set)" for name in LOADERS}
    np.save(folder / "logits.npy", logits_RMC)
    script = Path(__file__).with_name("store_reading_rivals.py")
    found: dict[str, tuple[Cost | str, Cost] | str] = {}
    for name in LOADERS:
        line = [python, str(script), name, str(folder), str(rounds), str(workers)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if "Error" in line] or ["no message"]
            found[name] = f"missing ({told[-1][:80]})"
            continue
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        forwards, shuffled = (
            median([Cost(cpu=cpu, wall=wall) for cpu, wall in measured[way]]) if measured[way] else ""
            for way in ("forwards", "shuffled")
        )
        assert isinstance(shuffled, Cost)
        found[f"{name} {measured['version']}"] = forwards, shuffled
    return found
