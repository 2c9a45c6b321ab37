"""Rows of arrays that another tool wrote, read by zarr-python from verified bytes in memory.

zarr-python is shown neither the store nor its filesystem: it opens an array of one document, which was put
together here, and of the objects of one unit, each as its record says and each looked at before
(`zarr_foreign_objects`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.foreign_arrays import ForeignUnit
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.zarr_foreign_objects import check_object


def decode_foreign(unit: ForeignUnit, objects: Mapping[str, NDArray[np.uint8]]) -> NDArray[Any]:
    """A unit's rows `[n, *row_shape]`.

    Args:
        unit: Which.
        objects: By key: all bytes of the objects that `unit.records` names, verified against these.

    Raises:
        CorruptObject: They do not decode, or not to what this array holds.
        StoreError: Their records cannot vouch for them.
    """
    for key, data in objects.items():
        check_object(unit.array, data, key)
    rows = f"rows {unit.start} to {unit.stop - 1} of {unit.folder}"
    try:
        values = _read_by_zarr(unit, objects)
    except Exception as error:  # whatever a library makes of bytes that anybody may have written
        raise CorruptObject(f"{rows} do not decode: {type(error).__name__}: {error}") from error
    expected = (unit.stop - unit.start, *unit.array.column.row_shape)
    if values.shape != expected:
        raise CorruptObject(f"{rows} decode to shape {list(values.shape)}, expected {list(expected)}")
    return np.ascontiguousarray(values, dtype=unit.array.column.dtype)


def _read_by_zarr(unit: ForeignUnit, objects: Mapping[str, NDArray[np.uint8]]) -> NDArray[Any]:
    # Here, not above: it takes as long to import as all that a reader needs otherwise.
    import zarr
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    held = {
        key.removeprefix(f"{unit.folder}/"): Buffer.from_array_like(data) for key, data in objects.items()
    }
    held["zarr.json"] = Buffer.from_bytes(unit.array.document)
    array = zarr.open_array(MemoryStore(dict(held), read_only=True), mode="r", zarr_format=3)
    return np.asarray(array[unit.start : unit.stop])
