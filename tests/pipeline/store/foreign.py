"""Arrays of a store written anew by another tool, with receipts and a catalog of what that tool wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from tests.stores import MadeStore

from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import ObjectRecord, UnitCommit

Rewrite = Callable[[Path, NDArray[Any]], None]


def by_zarr(**how: Any) -> Rewrite:
    """As zarr-python's `create_array` writes it, told so; its defaults otherwise."""

    def rewrite(place: Path, values: NDArray[Any]) -> None:
        fill = {"fill_value": np.nan} if values.dtype.kind == "f" else {}
        options = {"shape": values.shape, "dtype": values.dtype, **fill, **how}
        zarr.create_array(str(place), **options)[...] = values

    return rewrite


def rewrite_array(
    made: MadeStore, teacher: str, column: str, rewrite: Rewrite, segment: str = "s0000"
) -> Path:
    """Write one array anew, then receipts of what stands there, and seal; the folder of the array."""
    place = Path(made.objects.path(f"{keys.logits_group(teacher, segment, 0)}/{column}"))
    values = np.asarray(zarr.open_array(str(place), mode="r")[...])
    shutil.rmtree(place)
    rewrite(place, values)
    record_anew(made, teacher, column, segment)
    return place


def record_anew(made: MadeStore, teacher: str, column: str, segment: str = "s0000") -> None:
    """Receipts and a catalog of what stands there."""
    folder = f"{keys.logits_group(teacher, segment, 0)}/{column}"
    place = Path(made.objects.path(folder))
    manifest = made.segments[segment][0]
    rows = json.loads((place / "zarr.json").read_text())["chunk_grid"]["configuration"]["chunk_shape"][0]
    standing = {
        f"{folder}/{path.relative_to(place)}": path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }
    for index in range(manifest.units):
        key = keys.commit(teacher, keys.unit_name(segment, 0, index))
        commit = UnitCommit.from_bytes(made.objects.read(key), key)
        others = [record for record in commit.objects if not record.key.startswith(f"{folder}/")]
        mine = [
            ObjectRecord.of(name, data)
            for name, data in standing.items()
            if commit.start <= rows * _first(name.removeprefix(f"{folder}/")) < commit.stop
        ]
        made.objects.replace(key, commit.model_copy(update={"objects": (*others, *mine)}).to_bytes())
    shutil.rmtree(Path(made.objects.path("catalog")), ignore_errors=True)  # nothing sealed yet
    seal(made.objects)


def _first(name: str) -> int:
    """First number of an object's name in the grid: of `c/3/0`, `c.3.0` and `3.0`."""
    return int(next(part for part in name.replace("/", ".").split(".") if part != "c"))
