"""A folder of image files, a folder a class or all in one, as torchvision's ImageFolder has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.arrow_strings import ArrowStrings
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.blob_rows import BlobRows, first_cells
from softcask.pipeline.transfer_sets.decoding import Unreadable, settle
from softcask.pipeline.transfer_sets.files import change_marks, file_name, told
from softcask.pipeline.transfer_sets.images import IMAGE_ENDINGS, ImageOptions, image_decoder
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.pipeline.transfer_sets.listing import listing_facts
from softcask.storage_schemas.errors import TransferSetError

_MOST_LOOKED_AT = 10_000
"""Files whose times are looked at to tell a change; of more, decoded rows are compared instead, which costs
less than the listing of a folder for every unit."""

OUTSIDE = "a link that leads out of the folder, which is not followed: set follow_links = true to allow it"


class ImageFolderOptions(SourceOptions):
    """`kind = "image_folder"`: a row for each image file under `root`, at any depth, in order of their paths.

    An id is the path within `root`. Names that begin with a dot, and files with other endings than images
    have, are no rows.

    Attributes:
        root: Local path or fsspec URL of the folder.
        labels: `folders`: each folder in `root` is a class, in order of their names; images that lie in
            `root` itself have no label. `none`: folders mean nothing.
        class_names: Names of the folders in the order of their class indices, where that is not the order of
            names or not all classes are there.
        image: What images are brought to.
        follow_links: Whether links that lead out of `root`, and links to folders, are followed.
        threads: How many images are decoded at once; by default as many as there are cores, up to 8.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: ResolvedPath
    labels: Literal["folders", "none"] = "folders"
    class_names: tuple[str, ...] | None = None
    image: ImageOptions = ImageOptions()
    follow_links: bool = False
    threads: int | None = Field(default=None, ge=1)

    def open(self) -> TransferSet:
        """List the folder, and read an image if the options state no size.

        Raises:
            TransferSetError: No such folder, no image in it, or folders that are no classes.
        """
        listed, marks = _listed(self.root, self.follow_links)
        if not len(listed.names):
            raise TransferSetError(
                f"{self.root}: no image ({', '.join(IMAGE_ENDINGS)}) in this folder; check the path"
            )
        decoder = image_decoder(self.image)
        shape, dtype = settle(decoder, first_cells(listed, len(listed.names)), self.root)
        names = self._class_names(listed)
        return BlobRows(
            rows=len(listed.names),
            input_shape=shape,
            input_dtype=dtype,
            classes=Lazy(partial(_labels, listed.names, names)) if names else None,
            ids=Lazy(partial(ArrowStrings, listed.names)),
            facts=_facts(self, listed, marks),
            look_again=partial(_look, self) if len(listed.names) <= _MOST_LOOKED_AT else None,
            blobs=listed,
            decoder=decoder,
            threads=self.threads,
        )

    def _class_names(self, listed: FolderBlobs) -> tuple[str, ...]:
        if self.labels == "none":
            return ()
        if self.class_names is None:
            return listed.folders
        if unknown := sorted(set(listed.folders) - set(self.class_names)):
            raise TransferSetError(
                f"{self.root}: folder {unknown[0]!r} is none of the {len(self.class_names)} in class_names; "
                "add it, or move it away"
            )
        return self.class_names


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderBlobs:
    """Files in a folder.

    Attributes:
        root: The folder.
        remote: Whether it lies on another machine.
        names: Paths of the files within it, in order.
        folders: Names of the folders in it, in order, empty ones too.
        outside: Positions of links that lead out of it.
    """

    root: str
    remote: bool
    names: pa.Array
    folders: tuple[str, ...]
    outside: frozenset[int]

    def runs(self, positions_B: NDArray[np.int64], most: int) -> Sequence[NDArray[np.int64]]:
        """Files in the order of their paths; see `Blobs`."""
        order = np.argsort(positions_B, kind="stable")
        return [order[first : first + most] for first in range(0, len(order), most)]

    def load(self, positions_R: NDArray[np.int64]) -> Iterator[bytes | Unreadable]:
        """Whole files; see `Blobs`."""
        filesystem, root = fsspec.url_to_fs(self.root)
        for position in positions_R.tolist():
            yield self._load(position, filesystem, root.rstrip("/"))

    def _load(self, position: int, filesystem: Any, root: str) -> bytes | Unreadable:
        if position in self.outside:
            return Unreadable(OUTSIDE)
        path = f"{root}/{self.names[position].as_py()}"
        with told(path):
            try:
                data: bytes = filesystem.cat_file(path) if self.remote else Path(path).read_bytes()
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                return Unreadable(f"{type(error).__name__}: {error.strerror or 'not there'}")
            return data


_Marks = tuple[object, ...]
"""A file's size, and what else tells its version."""

_Entry = tuple[str, _Marks | None, bool]
"""Path within the root, marks of a file (None: a folder), whether it is a link that leads out."""


def _listed(root: str, follow_links: bool) -> tuple[FolderBlobs, list[_Marks]]:
    """The files of a folder and the marks of each.

    Raises:
        TransferSetError: There is no such folder, or a link that is not followed.
    """
    with told(root):
        filesystem, path = fsspec.url_to_fs(root)
        if not filesystem.isdir(path):
            if filesystem.exists(path):
                raise TransferSetError(f"{root}: found a file, expected a folder of images")
            raise FileNotFoundError(path)
        local = isinstance(filesystem, LocalFileSystem)
        found = list(_walked(Path(path), follow_links) if local else _remote(filesystem, path))
    files = sorted((entry for entry in found if entry[1] is not None), key=lambda entry: entry[0])
    folders = {name.partition("/")[0] for name, marks, _ in found if marks is None or "/" in name}
    blobs = FolderBlobs(
        root=root,
        remote=not local,
        names=pa.array([name for name, _, _ in files], pa.string()),
        folders=tuple(sorted(folders)),
        outside=frozenset(place for place, (_, _, outside) in enumerate(files) if outside),
    )
    return blobs, [marks for _, marks, _ in files if marks is not None]


def _walked(root: Path, follow_links: bool) -> Iterator[_Entry]:
    inside = os.path.realpath(root) + os.sep
    seen: set[str] = set()

    def walk(folder: str, name: str) -> Iterator[_Entry]:
        real = os.path.realpath(folder)
        if real in seen:
            raise TransferSetError(f"{folder}: a link to a folder that is already part of {root}; remove it")
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{name}{entry.name}"
                if entry.is_dir():
                    if entry.is_symlink() and not follow_links:
                        raise TransferSetError(
                            f"{entry.path}: a link to a folder, which is not followed: set follow_links = "
                            "true to allow it, or remove it"
                        )
                    yield path, None, False
                    yield from walk(entry.path, f"{path}/")
                elif path.lower().endswith(IMAGE_ENDINGS):
                    link = entry.is_symlink() and not follow_links
                    yield path, _marks(entry), link and not os.path.realpath(entry.path).startswith(inside)

    return walk(str(root), "")


def _marks(entry: os.DirEntry[str]) -> _Marks:
    try:
        state = entry.stat()
    except FileNotFoundError:  # a link to nothing, which cannot be read later
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _remote(filesystem: Any, path: str) -> Iterator[_Entry]:
    filesystem.invalidate_cache()
    base = path.rstrip("/") + "/"
    for found, info in filesystem.find(path, detail=True).items():
        name = found.removeprefix(base)
        if name.lower().endswith(IMAGE_ENDINGS) and not any(part.startswith(".") for part in name.split("/")):
            yield name, (info.get("size"), *change_marks(info).values()), False


def _look(options: ImageFolderOptions) -> dict[str, Any]:
    return _facts(options, *_listed(options.root, options.follow_links))


def _facts(options: ImageFolderOptions, listed: FolderBlobs, marks: list[_Marks]) -> dict[str, Any]:
    stated = options.model_dump(include={"kind", "labels", "class_names", "follow_links"}, exclude_none=True)
    named = zip(listed.names.to_pylist(), marks, strict=True)
    files = {"root": listing_facts(file_name(options.root.rstrip("/")), named)}
    folders = {"folders": list(listed.folders)} if options.labels == "folders" else {}
    return stated | {"files": files, "image": options.image.facts()} | folders


def _labels(names: pa.Array, classes: tuple[str, ...]) -> NDArray[np.int64]:
    index = {name: number for number, name in enumerate(classes)}
    folders = (name.rpartition("/")[0].partition("/")[0] for name in names.to_pylist())
    return np.fromiter((index.get(folder, -1) for folder in folders), np.int64, len(names))
