"""The formats known by name; others register under the entry-point group `softcask.importers`."""

from __future__ import annotations

from softcask.pipeline.exchange.importers.base import Opener
from softcask.pipeline.parts import Registry

_HERE = "softcask.pipeline.exchange.importers"

IMPORTERS: Registry[Opener] = Registry(
    part="import",
    group="softcask.importers",
    builtin={
        "distillkit": f"{_HERE}.distillkit:open_distillkit",
        "npy": f"{_HERE}.arrays:open_arrays",
        "parquet": f"{_HERE}.parquet:open_parquet",
        "tinyvit": f"{_HERE}.tinyvit:open_tinyvit",
    },
)
