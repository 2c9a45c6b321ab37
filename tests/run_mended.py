"""Runs a script as Python would, where torchvision was built for another torch: see `mended_torchvision`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.mended_torchvision import mend

if __name__ == "__main__":
    mend()
    sys.argv = sys.argv[1:]
    sys.path[:2] = [str(Path(sys.argv[0]).parent), *sys.path[1:2]]
    runpy.run_path(sys.argv[0], run_name="__main__")
