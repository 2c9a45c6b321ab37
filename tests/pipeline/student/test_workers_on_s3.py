"""Workers of a student whose store lies on S3: each fetches for itself, forked or spawned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from tests.s3_server import S3

from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.student import loader


@pytest.mark.timeout(120)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_fetch_what_a_thread_would(world: Any, s3: S3, tmp_path: Path, start_method: Any) -> None:
    fsspec.filesystem("s3").put(world.store, s3.uri.removeprefix("s3://"), recursive=True)
    expected = list(loader(world.store, keep_bytes=0, batch_size=64))
    store = open_store(s3.uri, cache_dir=str(tmp_path / "cache"))
    found = loader(store, keep_bytes=0, batch_size=64, num_workers=1, start_method=start_method)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.rows_B, other.rows_B)
