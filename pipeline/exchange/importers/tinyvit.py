"""TinyViT's saved logits (arXiv 2207.10666; `save_logits.py` of microsoft/Cream, TinyViT).

A folder an epoch, `logits_top100_epoch0`, of `rankN-keys.txt`, a key a line, and `rankN-values.bin`, a record
a key: the augmentation's seed as int32, k classes as int16, k probabilities as float16, the largest first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import Source, digests, existing
from softcask.pipeline.exchange.importers.sparse import TopRows, checked
from softcask.storage_schemas.errors import ExchangeError

NAME = "tinyvit"
LEAST_PROBABILITY = 2.0**-25
"""What float16 rounds to 0 lies below; it is read as this."""

_KEYS, _VALUES = "-keys.txt", "-values.bin"
_TOP = re.compile(r"logits_top(\d+)_")
_MOST_CLASSES = 1 << 16
_LIMITS = (
    "top-k at T=1: what lies outside is known by its sum alone",
    "probabilities in float16: relative error 5e-4, what is below 3e-8 is read as 3e-8",
    "of augmented inputs: TinyViT redraws the augmentation from a seed, which is not kept here; a student "
    "sees what its teacher saw only where that was not augmented",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyVitLogits:
    """One epoch; see `ForeignLogits`.

    Attributes:
        num_classes: C.
        top_k: Classes a row.
        files: By name.
        values: Records of each file of values, mapped.
        ids: Keys of all rows.
        file_N: Which file of values each row lies in.
        record_N: Which record of it.
        twice: Rows left out because their key stands in an earlier file: the last batch of an epoch is filled
            up with rows of other ranks.
    """

    num_classes: int
    top_k: int
    files: dict[str, Path]
    values: tuple[NDArray[Any], ...]
    ids: pa.Array
    file_N: NDArray[np.int32]
    record_N: NDArray[np.int64]
    twice: int

    @property
    def limits(self) -> tuple[str, ...]:
        """See `ForeignLogits`."""
        return _LIMITS

    def sample_ids(self) -> pa.Array:
        """The keys."""
        return self.ids

    def labels(self) -> NDArray[np.int64] | None:
        """The format has none."""
        return None

    def read(self, positions_B: NDArray[np.int64]) -> TopRows:
        """See `ForeignLogits`."""
        records_B = np.empty(len(positions_B), dtype=_record(self.top_k))
        file_B, record_B = self.file_N[positions_B], self.record_N[positions_B]
        for number, values in enumerate(self.values):
            mine = file_B == number
            records_B[mine] = values[record_B[mine]]
        probabilities_BK = records_B["probabilities"].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_BK = np.log(np.where(probabilities_BK == 0, LEAST_PROBABILITY, probabilities_BK))
        paths = [path for name, path in self.files.items() if name.endswith(_VALUES)]
        return checked(
            TopRows(classes_BK=records_B["classes"].astype(np.int64), log_probs_BK=log_BK),
            self.num_classes,
            lambda row: f"{paths[file_B[row]]}: record {record_B[row]} (key {self.ids[positions_B[row]]})",
        )

    def describe(self) -> dict[str, Any]:
        """See `ForeignLogits`."""
        return {
            "format": NAME,
            "files": digests(self.files),
            "top_k": self.top_k,
            "classes": self.num_classes,
        }


def open_tinyvit(source: Source) -> TinyVitLogits:
    """Open the folder of one epoch.

    Raises:
        ExchangeError: No such folder, a file of values that does not go with its keys, keys that repeat in a
            file, or numbers of classes that do not fit.
    """
    source.refuse_unused(NAME, "top_k")
    classes, top_k = source.needed_classes(NAME), _top_k(source)
    if not 1 <= top_k <= classes <= _MOST_CLASSES:
        raise ExchangeError(
            f"{source.path}: {top_k} of {classes} classes a row; expected at most as many as there are, and "
            f"of those no more than 16 bits can number, {_MOST_CLASSES}"
        )
    ranks = _ranks(source.path)
    files = {
        f"{rank}{ending}": source.path / f"{rank}{ending}" for rank in ranks for ending in (_KEYS, _VALUES)
    }
    keys = [_read_keys(files[f"{rank}{_KEYS}"]) for rank in ranks]
    values = tuple(
        _map_values(files[f"{rank}{_VALUES}"], len(held), top_k)
        for rank, held in zip(ranks, keys, strict=True)
    )
    ids, file_N, record_N = _without_repeats(keys)
    return TinyVitLogits(
        num_classes=classes,
        top_k=top_k,
        files=files,
        values=values,
        ids=ids,
        file_N=file_N,
        record_N=record_N,
        twice=sum(map(len, keys)) - len(ids),
    )


def _record(top_k: int) -> np.dtype[Any]:
    # Classes are written as int16; read without a sign, those above 32767 are themselves again.
    return np.dtype([("seed", "<i4"), ("classes", "<u2", (top_k,)), ("probabilities", "<f2", (top_k,))])


def _top_k(source: Source) -> int:
    if source.top_k is not None:
        return source.top_k
    if (match := _TOP.match(source.path.resolve().name)) is None:
        raise ExchangeError(
            f"{source.path}: its name does not say how many classes a row has, as logits_top100_epoch0 does; "
            "give --top-k"
        )
    return int(match[1])


def _ranks(folder: Path) -> list[str]:
    """Names before the endings, rank 0 first."""
    if not existing(folder, "folder").is_dir():
        raise ExchangeError(f"{folder} is a file; expected the folder of an epoch, with rank0{_KEYS} in it")
    found = {
        ending: {path.name.removesuffix(ending) for path in folder.iterdir() if path.name.endswith(ending)}
        for ending in (_KEYS, _VALUES)
    }
    if not found[_KEYS] or found[_KEYS] != found[_VALUES]:
        alone = sorted(found[_KEYS] ^ found[_VALUES])
        raise ExchangeError(
            f"{folder}: expected pairs of rank0{_KEYS} and rank0{_VALUES}; found "
            f"{f'{alone[0]} without the other' if alone else 'none'}"
        )
    return sorted(found[_KEYS], key=lambda name: (len(name), name))


def _read_keys(path: Path) -> list[str]:
    try:
        keys = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path}: no text: {error}") from error
    if len(set(keys)) < len(keys):
        raise ExchangeError(f"{path}: {len(keys) - len(set(keys))} keys repeat; expected each once")
    return keys


def _map_values(path: Path, rows: int, top_k: int) -> NDArray[Any]:
    record = _record(top_k)
    if (size := path.stat().st_size) != rows * record.itemsize:
        raise ExchangeError(
            f"{path} has {size} bytes, expected {rows * record.itemsize}: {rows} keys of {record.itemsize} "
            f"bytes (a seed and {top_k} classes). Is it cut short, or the number of classes a row another?"
        )
    return np.memmap(path, record, "r", shape=(rows,)) if rows else np.empty(0, record)


def _without_repeats(keys: list[list[str]]) -> tuple[pa.Array, NDArray[np.int32], NDArray[np.int64]]:
    place: dict[str, tuple[int, int]] = {}
    for file, held in enumerate(keys):
        for record, key in enumerate(held):
            place.setdefault(key, (file, record))
    found = np.array(list(place.values()), dtype=np.int64).reshape(-1, 2)
    return pa.array(list(place), pa.string()), found[:, 0].astype(np.int32), found[:, 1]
