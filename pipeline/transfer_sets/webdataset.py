"""WebDataset's shards: tar archives in which a sample's members share a name and differ in their endings.

Only the archives are needed, not the `webdataset` package: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from softcask.pipeline.parts import MAY_BE_MADE, ResolvedPath
from softcask.pipeline.transfer_sets.arrow_strings import ArrowStrings
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.blob_rows import BlobRows, first_cells
from softcask.pipeline.transfer_sets.decoding import (
    Decoder,
    NpyDecoder,
    RawDecoder,
    TextDecoder,
    Unreadable,
    settle,
)
from softcask.pipeline.transfer_sets.images import IMAGE_ENDINGS, ImageDecoder, ImageOptions, image_decoder
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.pipeline.transfer_sets.listing import FileList, list_files
from softcask.pipeline.transfer_sets.parquet import Paths
from softcask.pipeline.transfer_sets.shards import Shards
from softcask.pipeline.transfer_sets.table_rows import as_list
from softcask.pipeline.transfer_sets.tar_index import ABSENT, Wanted, endings_of, tar_index
from softcask.storage_schemas.errors import ConfigError

_SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")
_IMAGES = frozenset(endings_of(IMAGE_ENDINGS))
_TEXT = frozenset({"txt", "text"})
_GAP = 64 << 10
_RUN_BYTES = 8 << 20

ElementType = Literal[
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]
Endings = Annotated[tuple[str, ...], BeforeValidator(as_list), Field(min_length=1)]


class WebDatasetOptions(SourceOptions):
    """`kind = "webdataset"`: a row for each sample of tar shards, in order of the shards' names.

    An id is the sample's key: the members' path in the archive up to the first dot of the name. Keys must not
    repeat over all shards.

    Where members lie is looked up once, by reading the archives' headers, and kept: a row is then read
    without the rest of its shard. A gzipped shard is unpacked to a temporary file whenever it is read after
    others; plain ones are better.

    Attributes:
        path: A shard, a folder, a pattern, a range (`train-{000..146}.tar`), or a list of these; local paths
            or fsspec URLs.
        input: Endings of the input, of which a sample has one: of images, `npy`, `txt` or others that hold
            elements and nothing else, with `dtype` and `shape`.
        label: Ending of the label, `cls` (a number or a name as text) or `json`.
        label_key: Which value of a JSON label counts.
        label_names: Class names in the order of their indices, where labels are names.
        image: What images are brought to.
        dtype: Element type of an input that holds only elements, little-endian.
        shape: Its shape.
        index: Path or URL of a Parquet file in which the index is kept, for a cluster whose machines share
            it; by default one in this user's cache (`~/.cache/softcask`).
        threads: How many rows are read and decoded at once.
    """

    kind: Literal["webdataset"] = "webdataset"
    path: Paths
    input: Endings = ("jpg", "jpeg", "png", "webp")
    label: str | None = None
    label_key: str = "label"
    label_names: tuple[str, ...] | None = None
    image: ImageOptions = ImageOptions()
    dtype: ElementType | None = None
    shape: tuple[int, ...] | None = None
    index: Annotated[ResolvedPath | None, MAY_BE_MADE] = None
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        endings = set(endings_of(self.input))
        known = any(endings <= each for each in (_IMAGES, _TEXT, {"npy"}))
        if (self.dtype is None) != (self.shape is None):
            raise ConfigError("dtype and shape belong together: set both or none")
        if known == (self.dtype is not None):
            raise ConfigError(
                f"input {', '.join(self.input)}: expected endings of images, npy or txt, all of one of "
                "these, or others with dtype and shape"
            )
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise ConfigError(f"shape must hold sizes of 1 and more, found {list(self.shape)}")
        return self

    def open(self) -> TransferSet:
        """Find the members, or read from the index where they are.

        Raises:
            TransferSetError: No such shard, a damaged or truncated one, or a label that is none.
        """
        files, decoder = self._files(), self._decoder()
        shards = Shards.of(files)
        label = {"ending": self.label, "key": self.label_key, "names": self.label_names}
        wanted = Wanted(
            inputs=endings_of(self.input),
            label=endings_of([self.label])[0] if self.label else None,
            parse=partial(_parsed, label_key=self.label_key, names=self.label_names),
            facts=label if self.label else {},
        )
        index = tar_index(shards, wanted, files.facts, self.index)
        blobs = TarBlobs.of(shards, index, wanted.inputs)
        shape, dtype = settle(decoder, first_cells(blobs, len(index)), str(files.facts["name"]))
        classes = index["label"].to_numpy() if self.label else None
        return BlobRows(
            rows=len(index),
            input_shape=shape,
            input_dtype=dtype,
            classes=None if classes is None else Lazy(partial(np.asarray, classes)),
            ids=Lazy(partial(ArrowStrings, index["key"])),
            facts=_facts(self, decoder, files),
            look_again=partial(_facts, self, decoder),
            blobs=blobs,
            decoder=decoder,
            threads=self.threads,
        )

    def _files(self) -> FileList:
        return list_files(self.path, _SHARD_ENDINGS)

    def _decoder(self) -> Decoder:
        endings = set(endings_of(self.input))
        if self.dtype is not None and self.shape is not None:
            return RawDecoder(self.shape, np.dtype(self.dtype))
        if endings <= _TEXT:
            return TextDecoder()
        return NpyDecoder() if endings == {"npy"} else image_decoder(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarBlobs:
    """Members of archives.

    Attributes:
        shards: The archives.
        files_N: Archive of each member.
        offsets_N: Its first byte, in the unpacked archive.
        sizes_N: Its bytes, `ABSENT` of a sample without input.
        inputs: Endings that the input could have had.
    """

    shards: Shards
    files_N: NDArray[np.int64]
    offsets_N: NDArray[np.int64]
    sizes_N: NDArray[np.int64]
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, shards: Shards, index: pa.Table, inputs: tuple[str, ...]) -> TarBlobs:
        """The inputs that an index lists."""
        files_N, offsets_N, sizes_N = (
            index[name].to_numpy().astype(np.int64) for name in ("file", "offset", "size")
        )
        return cls(shards=shards, files_N=files_N, offsets_N=offsets_N, sizes_N=sizes_N, inputs=inputs)

    @property
    def remote(self) -> bool:
        """Whether the archives lie on another machine."""
        return self.shards.remote

    def runs(self, positions_B: NDArray[np.int64], most: int) -> Sequence[NDArray[np.int64]]:
        """Members that follow each other closely, up to 8 MiB of them; see `Blobs`."""
        files_B, offsets_B = self.files_N[positions_B], self.offsets_N[positions_B]
        ends_B = offsets_B + np.maximum(self.sizes_N[positions_B], 0)
        order = np.lexsort((offsets_B, files_B))
        runs: list[list[int]] = []
        for place in order.tolist():
            run = runs[-1] if runs else []
            near = (
                0 < len(run) < most
                and files_B[run[0]] == files_B[place]
                and offsets_B[place] - ends_B[run[-1]] <= _GAP
                and ends_B[place] - offsets_B[run[0]] <= _RUN_BYTES
            )
            if near:
                run.append(place)
            else:
                runs.append([place])
        return [np.array(run) for run in runs]

    def load(self, positions_R: NDArray[np.int64]) -> Iterator[bytes | Unreadable]:
        """Members, by one read for all; see `Blobs`."""
        there = positions_R[self.sizes_N[positions_R] != ABSENT]
        data, start = b"", 0
        if len(there):
            start = int(self.offsets_N[there].min())
            stop = int((self.offsets_N[there] + self.sizes_N[there]).max())
            data = self.shards.read(int(self.files_N[there[0]]), start, stop)
        for position in positions_R.tolist():
            offset, size = int(self.offsets_N[position]) - start, int(self.sizes_N[position])
            if size == ABSENT:
                yield Unreadable(f"no member {' or '.join(self.inputs)}")
            else:
                yield data[offset : offset + size]


def _facts(options: WebDatasetOptions, decoder: Decoder, files: FileList | None = None) -> dict[str, Any]:
    files = files or list_files(options.path, _SHARD_ENDINGS)
    stated = {"kind", "input", "label", "label_key", "label_names", "dtype", "shape"}
    described = options.model_dump(mode="json", include=stated, exclude_none=True)
    image = {"image": options.image.facts()} if isinstance(decoder, ImageDecoder) else {}
    return described | {"files": {"path": dict(files.facts)}} | image


def _parsed(data: bytes, *, label_key: str, names: tuple[str, ...] | None) -> int:
    """Class index of a label: JSON's value under a key, or text.

    Raises:
        ValueError: Not a whole number, nor one of the names.
    """
    text = data.decode().strip()
    value: Any = text
    if text.startswith("{"):
        value = json.loads(text).get(label_key)
    if value is None or value == "":
        return ABSENT
    if names is not None and isinstance(value, str):
        if value not in names:
            raise ValueError(f"{value!r} is none of the {len(names)} names in label_names")
        return names.index(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r}, expected a whole number or, with label_names, a name")
    return int(value)
