"""Hugging Face datasets on disk: what `save_to_disk` wrote, or the Parquet and Arrow files of a snapshot.

Their files are Arrow's and Parquet's own and are read as such: neither the `datasets` package nor the hub has
a part in it, and a student that reads them needs neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import fsspec
import pyarrow as pa
from pydantic import Field

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.files import file_name, open_bytes, told
from softcask.pipeline.transfer_sets.listing import FileList, list_files
from softcask.pipeline.transfer_sets.table_rows import ColumnOptions, table_rows
from softcask.pipeline.transfer_sets.tables import ArrowTables, ParquetTables, Tables
from softcask.storage_schemas.errors import TransferSetError

_SPLITS = "dataset_dict.json"
_STATE = "state.json"
_INFO = "dataset_info.json"
_USUAL_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval")
_LEFT_OVER = ("cache-", "tmp")
"""What names of files begin with that `datasets` leaves in its folders and that are no part of a dataset."""


class HuggingFaceOptions(ColumnOptions):
    """`kind = "huggingface"`: rows of a dataset on disk.

    Columns may be of any feature that is text, numbers, lists or arrays of one shape, or images with their
    bytes. Where the label is a `ClassLabel` and `label_names` lists its names in another order, class indices
    are those of `label_names`.

    Attributes:
        path: Local path or fsspec URL of a folder: of a `Dataset` or `DatasetDict` that `save_to_disk` wrote,
            or of Parquet or Arrow files, as a snapshot of a repository of the hub and the cache of `datasets`
            have them.
        split: Which split; needed where there are several.
        id_prefix: Without `id`, a row's id is `{id_prefix}-{position:08d}`; by default the split's name, or
            the folder's where there are no splits.
    """

    kind: Literal["huggingface"] = "huggingface"
    path: ResolvedPath
    split: str | None = Field(default=None, min_length=1)
    id_prefix: str | None = Field(default=None, min_length=1)

    def open(self) -> TransferSet:
        """Read the headers or footers of all files.

        Raises:
            TransferSetError: No dataset there, several splits and none named, damaged files, or columns that
                are not what they are named as.
        """
        found = self._found()
        tables: Tables
        if found.arrow:
            tables = ArrowTables.of(found.files, self.columns())
        else:
            tables = ParquetTables.of(found.files, self.columns())
        features = found.features or _features_in(tables.schema)
        return table_rows(
            self,
            tables,
            place=file_name(self.path.rstrip("/")),
            id_prefix=self.id_prefix or found.name,
            stored_names=_class_names(features, self.label),
        )

    def place_facts(self) -> dict[str, Any]:
        """The files as they are now, and the ids' start."""
        found = self._found()
        return {"files": {"path": dict(found.files.facts)}, "id_prefix": self.id_prefix or found.name}

    def _found(self) -> _Found:
        root = self.path.rstrip("/")
        with told(root):
            filesystem, path = fsspec.url_to_fs(root)
            if not filesystem.isdir(path):
                raise TransferSetError(f"{root}: no such folder; expected the folder of a dataset")
            has = partial(_has, filesystem, path)
        if has(_SPLITS):
            root = f"{root}/{_chosen(root, self.split, _json(f'{root}/{_SPLITS}').get('splits', []))}"
            return _saved(root, file_name(root))
        if has(_STATE):
            return _saved(root, self.split or file_name(root))
        return _loose(root, self.split)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A split on disk.

    Attributes:
        name: Its name, or the folder's.
        files: Its files, in order.
        arrow: Whether they are Arrow's own format, else Parquet.
        features: Its features, if a file beside them tells.
    """

    name: str
    files: FileList
    arrow: bool
    features: Mapping[str, Any]


def _saved(root: str, name: str) -> _Found:
    """What `Dataset.save_to_disk` wrote."""
    state = _json(f"{root}/{_STATE}")
    if state.get("_indices_data_files"):
        raise TransferSetError(
            f"{root}: saved with a table of indices beside it; save it again after flatten_indices()"
        )
    names = [str(file.get("filename")) for file in state.get("_data_files", [])]
    if not names or any("/" in each or "\\" in each for each in names):
        raise TransferSetError(f"{root}/{_STATE}: expected the names of the files beside it, found {names}")
    files = list_files([f"{root}/{each}" for each in names], (".arrow",), name=file_name(root))
    return _Found(name=name, files=files, arrow=True, features=_json(f"{root}/{_INFO}").get("features") or {})


def _loose(root: str, split: str | None) -> _Found:
    """Files whose names tell their split."""
    found = list_files([root], (".parquet", ".arrow"))
    kept = [
        (url, name)
        for url, name in zip(found.urls, found.names, strict=True)
        if not name.rpartition("/")[2].startswith(_LEFT_OVER) and (split is None or _is_of(split, name))
    ]
    splits = [each for each in _USUAL_SPLITS if any(_is_of(each, name) for _, name in kept)]
    if not kept or (split is None and len(splits) > 1):
        _chosen(root, split, [each for each in _USUAL_SPLITS if any(_is_of(each, n) for n in found.names)])
    endings = {name.rpartition(".")[2] for _, name in kept}
    if len(endings) > 1:
        raise TransferSetError(f"{root}: Parquet and Arrow files in one folder; name a folder of one of them")
    files = list_files([url for url, _ in kept], (".parquet", ".arrow"), name=file_name(root))
    name = split or (splits[0] if splits else file_name(root))
    return _Found(name=name, files=files, arrow=endings == {"arrow"}, features={})


def _chosen(root: str, split: str | None, splits: list[str]) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        asked = "no split is named" if split is None else f"no split {split!r}"
        raise TransferSetError(f"{root}: {asked}; it has {', '.join(splits) or 'none'}; set split to one")
    return str(split)


def _is_of(split: str, name: str) -> bool:
    """Whether a path names a split: `train-00000-of-00002.parquet`, `imdb-train.arrow`, `train/0.parquet`."""
    return re.search(rf"(^|[-._ 0-9/]){re.escape(split)}([-._ 0-9/]|$)", name) is not None


def _class_names(features: Mapping[str, Any], label: str | None) -> tuple[str, ...]:
    """Names of a `ClassLabel`; none of another feature."""
    feature = features.get(label) if label is not None else None
    names = feature.get("names") if isinstance(feature, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _features_in(schema: pa.Schema) -> Mapping[str, Any]:
    """Features that `datasets` notes in the schema of its files."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, Mapping) else {}


def _has(filesystem: Any, path: str, name: str) -> bool:
    return bool(filesystem.isfile(f"{path}/{name}"))


def _json(url: str) -> dict[str, Any]:
    with open_bytes(url) as stream:
        found = json.load(stream)
    if not isinstance(found, dict):
        raise TransferSetError(f"{url}: expected a JSON object as `datasets` writes it, found {type(found)}")
    return found
