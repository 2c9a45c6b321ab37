"""MNIST's rows, and the parts of the training set that sections use. The test rows choose nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.idx import IdxOptions

TEST = "test"
HELD_OUT = "held out"

Labels = NDArray[np.int64]


def _fit(labels_N: Labels) -> NDArray[np.int64]:
    return np.arange(len(labels_N) - len(labels_N) // 6)


PARTS: dict[str, Callable[[Labels], NDArray[np.int64]]] = {
    "all": lambda labels_N: np.arange(len(labels_N)),
    # The last 10,000 of 60,000 choose learning rates and biases, of nets that learn from the first 50,000.
    "fit": _fit,
    HELD_OUT: lambda labels_N: np.arange(len(_fit(labels_N)), len(labels_N)),
    "fit, no 3": lambda labels_N: _fit(labels_N)[labels_N[_fit(labels_N)] != 3],
    "fit, only 7 and 8": lambda labels_N: _fit(labels_N)[np.isin(labels_N[_fit(labels_N)], (7, 8))],
    "3 %": lambda labels_N: np.arange(len(labels_N) * 3 // 100),
    "tenth": lambda labels_N: np.arange(len(labels_N) // 10),
    "other nine tenths": lambda labels_N: np.arange(len(labels_N) // 10, len(labels_N)),
}
"""Positions in the training set by name of the part, from the labels of all its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Some rows: images uint8 `[N, 28, 28]`, labels `[N]`, and their positions in the file they come from."""

    images_N: NDArray[np.uint8]
    labels_N: Labels
    positions_N: NDArray[np.int64]


@dataclass(frozen=True)
class Mnist:
    """The four files in a folder, read when first asked for."""

    folder: Path

    def digits(self, part: str) -> Digits:
        """The rows of a part: `TEST`, or one of `PARTS` of the training set."""
        if part == TEST:
            return self._test
        positions_N = PARTS[part](self._train.labels_N)
        return Digits(
            images_N=self._train.images_N[positions_N],
            labels_N=self._train.labels_N[positions_N],
            positions_N=positions_N,
        )

    def source(self, part: str, folder: Path, *, labelled: bool) -> dict[str, Any]:
        """The section `[transfer_set]` or `[evaluation]` of these rows; a part is written to `folder` first.

        Ids are those of the whole training set, by which a store knows the rows.
        """
        if part in (TEST, "all"):
            split = "t10k" if part == TEST else "train"
            images, labels = (self.folder / file for file in _files(split))
            source = {"kind": "idx", "images": str(images), "labels": str(labels), "id_prefix": "train"}
        else:
            file = str(self._written(part, folder))
            source = {"kind": "arrays", "inputs": file, "labels": file, "ids": file}
        return source if labelled else {key: value for key, value in source.items() if key != "labels"}

    def _written(self, part: str, folder: Path) -> Path:
        file = folder / f"{part.replace(',', '').replace(' ', '_')}.npz"
        if not file.exists():
            digits = self.digits(part)
            ids = np.array([f"train-{position:08d}" for position in digits.positions_N])
            folder.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part.npz")
            np.savez(aside, inputs=digits.images_N, labels=digits.labels_N, ids=ids)
            aside.replace(file)
        return file

    @cached_property
    def _train(self) -> Digits:
        return self._read("train")

    @cached_property
    def _test(self) -> Digits:
        return self._read("t10k")

    def _read(self, split: str) -> Digits:
        images, labels = (str(self.folder / file) for file in _files(split))
        source = IdxOptions(images=images, labels=labels).open()
        positions_N = np.arange(len(source))
        labels_N = source.labels(0, len(source))
        assert labels_N is not None  # noqa: S101 - they were named
        return Digits(images_N=source.read(positions_N).inputs_B, labels_N=labels_N, positions_N=positions_N)


def _files(split: str) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
