"""numpy's own files: `.npy`, or arrays in a `.npz`. Never unpickled: a file of objects is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import partial
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.array_rows import ArrayRows, checked_labels, checked_rows
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.files import file_facts, file_name, open_bytes
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.pipeline.transfer_sets.stored_array import StoredArray
from softcask.storage_schemas.errors import TransferSetError

_ZIP_MAGIC = b"PK"


class ArraysOptions(SourceOptions):
    """`kind = "arrays"`: inputs and, if there are any, labels and ids as numpy files.

    All three may be one `.npz`; then `labels` and `ids` name it, too, and the keys tell them apart. A `.npy`
    on this machine is mapped, everything else is read into memory.

    Attributes:
        inputs: Local path or fsspec URL of a `.npy` or `.npz`; the first axis counts rows.
        labels: The same for class indices, one axis.
        ids: The same for sample ids, one axis of strings or integers; they must not repeat.
        inputs_key: Which array of a `.npz` holds the inputs.
        labels_key: Which holds the labels.
        ids_key: Which holds the ids.
        id_prefix: Without `ids`, a row's is `{id_prefix}-{position:08d}`; by default the inputs' file name
            without its ending.
    """

    kind: Literal["arrays"] = "arrays"
    inputs: ResolvedPath
    labels: ResolvedPath | None = None
    ids: ResolvedPath | None = None
    inputs_key: str = "inputs"
    labels_key: str = "labels"
    ids_key: str = "ids"
    id_prefix: str | None = Field(default=None, min_length=1)

    def open(self) -> TransferSet:
        """Read the headers.

        Raises:
            TransferSetError: A file or key is missing, no numpy file, holds objects, is truncated, or inputs,
                labels and ids do not fit together.
        """
        inputs = read_header(self.inputs, self.inputs_key)
        checked_rows(inputs.shape, inputs.dtype, inputs.place)
        rows = inputs.shape[0]
        prefix = self.id_prefix or file_name(self.inputs).rpartition(".")[0] or file_name(self.inputs)
        return ArrayRows(
            rows=rows,
            input_shape=inputs.shape[1:],
            input_dtype=inputs.dtype.newbyteorder("="),
            inputs=Lazy(inputs.load),
            classes=self._classes(rows),
            ids=self._ids(rows),
            id_prefix=prefix,
            facts=self._facts(prefix),
            look_again=partial(self._facts, prefix),
        )

    def _classes(self, rows: int) -> Lazy[NDArray[np.int64]] | None:
        if self.labels is None:
            return None
        labels = read_header(self.labels, self.labels_key)
        checked_labels(labels.shape, labels.dtype, labels.place, rows)
        return Lazy(partial(_load_labels, labels))

    def _ids(self, rows: int) -> Lazy[Sequence[str]] | None:
        if self.ids is None:
            return None
        ids = read_header(self.ids, self.ids_key)
        if ids.dtype.kind not in "Uiu" or ids.shape != (rows,):
            raise TransferSetError(
                f"{ids.place}: ids of type {ids.dtype} and shape {list(ids.shape)}, expected strings or "
                f"integers [{rows}], one for each input"
            )
        return Lazy(partial(_load_ids, ids))

    def _facts(self, prefix: str) -> dict[str, Any]:
        named = {"inputs": self.inputs, "labels": self.labels, "ids": self.ids}
        keys = {"inputs": self.inputs_key, "labels": self.labels_key, "ids": self.ids_key}
        files = {
            role: file_facts(url) | {"key": keys[role]} for role, url in named.items() if url is not None
        }
        return {"kind": self.kind, "files": files, "id_prefix": prefix}


def read_header(url: str, key: str) -> StoredArray:
    """Where an array's elements lie in a `.npy`, or under `key` in a `.npz`; its first bytes tell which.

    Raises:
        TransferSetError: No such file or key, no numpy file, one of objects, or of another size than it says.
    """
    file_facts(url)
    with open_bytes(url) as stream:
        zipped = stream.read(2) == _ZIP_MAGIC
    member = _member(url, key) if zipped else None
    with open_bytes(url, member=member) as stream:
        shape, fortran, dtype = _parse_header(stream, url if member is None else f"{url}:{member}")
        offset = stream.tell()
    header = StoredArray(
        url=url, dtype=dtype, shape=shape, offset=offset, order="F" if fortran else "C", member=member
    )
    header.check_size()
    return header


def _member(url: str, key: str) -> str:
    with open_bytes(url) as stream, zipfile.ZipFile(stream) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if key not in keys:
        raise TransferSetError(f"{url}: no array {key!r}; it holds {', '.join(keys) or 'none'}; set the key")
    return f"{key}.npy"


def _parse_header(stream: IO[bytes], place: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        parse = parsers[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = parse(stream)
    except KeyError as error:
        raise TransferSetError(
            f"{place}: .npy version {error}, expected (1, 0) or (2, 0); save it again"
        ) from error
    except ValueError as error:
        raise TransferSetError(
            f"{place}: not a .npy array: {error}; expected one that numpy.save wrote"
        ) from error
    if dtype.hasobject:
        raise TransferSetError(
            f"{place}: holds Python objects, which would have to be unpickled and may run code; expected "
            "numbers or strings: save it with a plain dtype"
        )
    return shape, fortran, dtype


def _load_labels(labels: StoredArray) -> NDArray[np.int64]:
    return np.asarray(labels.load(), dtype=np.int64)


def _load_ids(ids: StoredArray) -> list[str]:
    return [str(sample_id) for sample_id in ids.load().tolist()]
