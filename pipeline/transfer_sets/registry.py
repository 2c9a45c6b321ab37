"""The sources that `[transfer_set]` can name; a new one is a file here, a line below and a contract test."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.transfer_sets.base import SourceOptions

SOURCES: Registry[type[SourceOptions]] = Registry(
    part="transfer set",
    group="softcask.transfer_sets",
    builtin={
        "arrays": "softcask.pipeline.transfer_sets.arrays:ArraysOptions",
        "huggingface": "softcask.pipeline.transfer_sets.huggingface:HuggingFaceOptions",
        "idx": "softcask.pipeline.transfer_sets.idx:IdxOptions",
        "image_folder": "softcask.pipeline.transfer_sets.image_folder:ImageFolderOptions",
        "parquet": "softcask.pipeline.transfer_sets.parquet:ParquetOptions",
        "prepared": "softcask.pipeline.transfer_sets.prepared:PreparedOptions",
        "webdataset": "softcask.pipeline.transfer_sets.webdataset:WebDatasetOptions",
    },
)
