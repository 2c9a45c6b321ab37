"""MNIST's own format, IDX, gzipped or not: http://yann.lecun.com/exdb/mnist (bottom of that page).

Two zero bytes, a type, a number of axes, each axis as a big-endian uint32, then the elements, big-endian.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.array_rows import ArrayRows, checked_labels, checked_rows
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.files import file_facts, file_name, is_gzipped, open_bytes
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.pipeline.transfer_sets.stored_array import StoredArray
from softcask.storage_schemas.errors import TransferSetError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_FORMAT_ENDING = re.compile(r"[-._]idx\d(-\w+)?$")


class IdxOptions(SourceOptions):
    """`kind = "idx"`: images and, if there are any, labels as IDX files.

    Attributes:
        images: Local path or fsspec URL; the first axis counts rows.
        labels: The same for class indices, one axis.
        id_prefix: Ids are `{id_prefix}-{position:08d}`. By default the images' file name without `.gz` and
            `-idx3-ubyte`: rows of `train-images-idx3-ubyte.gz` are `train-images-00000000` and so on.
    """

    kind: Literal["idx"] = "idx"
    images: ResolvedPath
    labels: ResolvedPath | None = None
    id_prefix: str | None = Field(default=None, min_length=1)

    def open(self) -> TransferSet:
        """Read both headers.

        Raises:
            TransferSetError: A file is missing, no IDX file, truncated, or the two do not fit together.
        """
        images = read_header(self.images)
        checked_rows(images.shape, images.dtype, images.place)
        classes = None
        if self.labels is not None:
            labels = read_header(self.labels)
            checked_labels(labels.shape, labels.dtype, labels.place, rows=images.shape[0])
            classes = Lazy(partial(_load_labels, labels))
        prefix = self.id_prefix or default_prefix(self.images)
        return ArrayRows(
            rows=images.shape[0],
            input_shape=images.shape[1:],
            input_dtype=images.dtype.newbyteorder("="),
            inputs=Lazy(images.load),
            classes=classes,
            id_prefix=prefix,
            facts=self._facts(prefix),
            look_again=partial(self._facts, prefix),
        )

    def _facts(self, prefix: str) -> dict[str, Any]:
        named = {"images": self.images, "labels": self.labels}
        files = {role: file_facts(url) for role, url in named.items() if url is not None}
        return {"kind": self.kind, "files": files, "id_prefix": prefix}


def default_prefix(url: str) -> str:
    """The file's name without `.gz` and without what only names the format (`-idx3-ubyte`)."""
    name = file_name(url).removesuffix(".gz")
    return _FORMAT_ENDING.sub("", name) or name


def read_header(url: str) -> StoredArray:
    """Where an IDX file's elements lie.

    Raises:
        TransferSetError: No such file, not IDX, or shorter or longer than its header says.
    """
    file_facts(url)
    gzipped = is_gzipped(url)
    with open_bytes(url, gzipped=gzipped) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not magic[3]:
            raise TransferSetError(
                f"{url}: not an IDX file: it starts with {magic.hex(' ') or 'nothing'}, expected 00 00, a "
                f"type of {', '.join(f'{code:02x}' for code in _DTYPES)} and a number of axes; check the path"
            )
        axes = stream.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise TransferSetError(f"{url}: truncated within its header of {magic[3]} axes; fetch it again")
    header = StoredArray(
        url=url,
        dtype=np.dtype(_DTYPES[magic[2]]),
        shape=tuple(int(length) for length in np.frombuffer(axes, ">u4")),
        offset=4 + len(axes),
        gzipped=gzipped,
    )
    header.check_size()
    return header


def _load_labels(labels: StoredArray) -> NDArray[np.int64]:
    return np.asarray(labels.load(), dtype=np.int64)
