"""Somebody's own dataset as rows: items by index, ids, and what is known of their content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import default_collate

from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.storage_schemas.errors import TransferSetError
from softcask.storage_schemas.tables import HASH_BYTES

Ids = Sequence[str] | Callable[[int], str] | str
"""Ids of a dataset's rows: all, a function of a row's index, or the name of the attribute that holds all."""
Hashes = Sequence[bytes | str] | Callable[[Any], bytes | str | NDArray[Any]]
"""Content hashes of a dataset's rows, raw or as hexadecimal digits; or a function of an item, which gives its
hash, or what the teacher was given of it as an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """Rows that were read.

    Attributes:
        values: What a batch's `inputs` are made of.
        hashes: Tells the content hash `[B]` of each; None where that cannot be known.
    """

    values: Any
    hashes: Callable[[], NDArray[np.void]] | None


class DatasetRows:
    """Items of a map-style torch dataset, or of anything that has a length and items by index."""

    row_bytes = None

    def __init__(
        self,
        dataset: Any,
        *,
        ids: Ids | None,
        hashes: Hashes | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        """Items by index.

        Args:
            dataset: Has `__len__`, and `__getitem__` or `__getitems__`.
            ids: Ids of its rows.
            hashes: What is known of their content; None: nothing, so that ids alone say that an item is what
                the teacher saw.
            collate: Makes a batch's inputs of its items; None: torch's `default_collate`.

        Raises:
            TransferSetError: It is no such dataset, or other numbers of ids or hashes than of items.
        """
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TransferSetError(
                f"inputs are a {type(dataset).__name__}, expected a transfer set, or a dataset with a length "
                "and items by index, which can be joined by id in any order"
            )
        self._dataset, self._collate = dataset, collate or default_collate
        self._ids = _ids_of(dataset, ids)
        self._hash_of = hashes if callable(hashes) else None
        self.known_hashes = None if hashes is None or callable(hashes) else _hashes_of(hashes, len(dataset))
        self.tells_content = hashes is not None

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Sequence[str]:
        """See `InputRows`."""
        return self._ids

    def labels(self) -> NDArray[np.int64] | None:
        """See `InputRows`."""
        return None

    def any_readable(self, positions_N: NDArray[np.int64]) -> bool:
        """See `InputRows`."""
        return len(positions_N) > 0

    def read(self, positions_B: NDArray[np.int64]) -> ReadRows:
        """See `InputRows`."""
        at = positions_B.tolist()
        many = getattr(self._dataset, "__getitems__", None)
        items = many(at) if many is not None else [self._dataset[index] for index in at]
        hash_of = self._hash_of
        hashes = None if hash_of is None else lambda: as_hashes([hash_of(item) for item in items])
        return ReadRows(values=self._collate(items), hashes=hashes)


def _ids_of(dataset: Any, ids: Ids | None) -> list[str]:
    rows = len(dataset)
    if ids is None:
        raise TransferSetError(
            "a dataset is joined by id, and none are given: ids=[...], one a row as the store has them; a "
            "function of a row's index; or the name of the attribute that holds them"
        )
    if isinstance(ids, str):
        if not hasattr(dataset, ids):
            raise TransferSetError(
                f"ids are said to be {ids!r} of the {type(dataset).__name__}, which has none"
            )
        ids = getattr(dataset, ids)
    found = [ids(index) for index in range(rows)] if callable(ids) else list(ids)
    if len(found) != rows:
        raise TransferSetError(
            f"{len(found)} ids are given for {rows} items of the dataset; expected one each"
        )
    if odd := [each for each in found if not isinstance(each, str)]:
        raise TransferSetError(
            f"an id is {odd[0]!r} ({type(odd[0]).__name__}); expected strings, as the store has them"
        )
    return [str(each) for each in found]


def _hashes_of(hashes: Sequence[bytes | str], rows: int) -> NDArray[np.void]:
    if len(hashes) != rows:
        raise TransferSetError(
            f"{len(hashes)} hashes are given for {rows} items of the dataset; expected one each"
        )
    return as_hashes(hashes)


def as_hashes(values: Sequence[bytes | str | NDArray[Any]] | NDArray[np.void]) -> NDArray[np.void]:
    """Content hashes `[B]`, V16, of raw bytes, hexadecimal digits, or arrays to be hashed.

    Raises:
        TransferSetError: One is of another length, or nothing of these.
    """
    dtype = np.dtype(f"V{HASH_BYTES}")
    if isinstance(values, np.ndarray) and values.dtype == dtype:
        return values
    return np.frombuffer(b"".join(map(_hash, values)), dtype)


def _hash(value: Any) -> bytes:
    try:
        if isinstance(value, str):
            value = bytes.fromhex(value)
        if isinstance(value, bytes):
            found = value
        elif isinstance(value, np.void):
            found = value.tobytes()
        else:
            found = content_hashes(np.asarray(value)[None])[0].tobytes()
    except (ValueError, TypeError, AttributeError) as error:
        raise TransferSetError(
            f"{value!r} is no content hash and no row to hash ({error}); expected {HASH_BYTES} bytes, "
            f"{2 * HASH_BYTES} hexadecimal digits, or an array"
        ) from error
    if len(found) != HASH_BYTES:
        raise TransferSetError(f"a content hash has {len(found)} bytes, expected {HASH_BYTES}")
    return found
