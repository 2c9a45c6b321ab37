"""The first rows of MNIST, for examples that are run by tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

MNIST = Path(__file__).parents[2] / "examples" / "mnist"


def cut_digits(folder: Path, *, train: int, t10k: int) -> None:
    """Write the first rows of both splits, images and labels, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in {"train": train, "t10k": t10k}.items():
        _cut(f"{split}-images-idx3-ubyte.gz", folder, rows, header=16, row_bytes=28 * 28)
        _cut(f"{split}-labels-idx1-ubyte.gz", folder, rows, header=8, row_bytes=1)


def _cut(name: str, folder: Path, rows: int, *, header: int, row_bytes: int) -> None:
    """The first rows of an IDX file: its count is the second number of the header."""
    whole = gzip.decompress((MNIST / "data" / name).read_bytes())
    kept = whole[:4] + struct.pack(">I", rows) + whole[8 : header + rows * row_bytes]
    (folder / name).write_bytes(gzip.compress(kept, 1))
