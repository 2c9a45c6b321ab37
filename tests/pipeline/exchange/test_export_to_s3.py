"""Exports to a real S3-protocol server, with faults put in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.s3_server import S3, SECRET, answering
from tests.stores import sealed_store

from softcask.pipeline.exchange.destination import MANIFEST
from softcask.pipeline.exchange.export import export
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.errors import ExchangeError, StoreAccess


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftTargets:
    monkeypatch.setattr("softcask.pipeline.exchange.export._BLOCK_BYTES", 5 * 3 * 4)
    return SoftTargets(open_store(sealed_store(str(tmp_path / "cask")).objects.uri))


def test_a_folder_arrives_as_it_would_on_a_disk_and_its_manifest_last(
    s3: S3, targets: SoftTargets, tmp_path: Path
) -> None:
    export(targets, str(tmp_path / "out"), file_bytes=1)
    s3.fault(answering(503, "SlowDown"), method="PUT", key="part-00001.parquet")
    export(targets, f"s3://{s3.bucket}/out", file_bytes=1)
    local = {f"out/{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert s3.standing() == local
    assert len(local) == 5
    puts = [request.key for request in s3.requests if request.method == "PUT"]
    assert puts[-1].endswith(MANIFEST)
    assert [key.endswith(MANIFEST) for key in puts].count(True) == 1


def test_one_file_arrives_whole(s3: S3, targets: SoftTargets, tmp_path: Path) -> None:
    export(targets, f"s3://{s3.bucket}/out.parquet")
    (tmp_path / "out.parquet").write_bytes(s3.standing()["out.parquet"])
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 19
    with pytest.raises(ExchangeError, match="stands already"):
        export(targets, f"s3://{s3.bucket}/out.parquet")


def test_what_is_refused_is_told_without_secrets_and_leaves_nothing(s3: S3, targets: SoftTargets) -> None:
    s3.fault(answering(403, "AccessDenied"), method="PUT", key="part-00002.parquet", times=9)
    with pytest.raises(StoreAccess, match=rf"write s3://{s3.bucket}/out") as caught:
        export(targets, f"s3://{s3.bucket}/out", file_bytes=1)
    assert SECRET not in str(caught.value)
    assert s3.standing() == {}
