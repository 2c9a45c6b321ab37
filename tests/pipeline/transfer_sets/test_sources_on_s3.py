"""Sources that lie on an object store: found by one listing, read by ranges."""

from __future__ import annotations

import io
from urllib.parse import parse_qs

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.pipeline.transfer_sets.test_image_folder import PIXELS_BHWC, PLACES, encoded
from tests.pipeline.transfer_sets.test_webdataset import images, tar
from tests.s3_server import S3

from softcask.pipeline.transfer_sets.image_folder import ImageFolderOptions
from softcask.pipeline.transfer_sets.parquet import ParquetOptions
from softcask.pipeline.transfer_sets.webdataset import WebDatasetOptions


def put(s3: S3, objects: dict[str, bytes]) -> str:
    """Put objects below the server's bucket; the URL of their folder."""
    folder = s3.uri.rpartition("/")[0] + "/data"
    fsspec.filesystem("s3").pipe({f"{folder}/{name}": data for name, data in objects.items()})
    s3.requests.clear()
    return folder


def test_of_parquet_on_s3_the_footer_and_the_row_groups_asked_for_are_fetched(s3: S3) -> None:
    wide = np.random.default_rng(0).random((64, 1000))
    stream = io.BytesIO()
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(wide.reshape(-1)), 1000)})
    pq.write_table(table, stream, row_group_size=8, compression="none", use_dictionary=False)
    source = ParquetOptions(path=put(s3, {"a.parquet": stream.getvalue()}), input="x").open()
    s3.requests.clear()
    np.testing.assert_array_equal(source.read(np.array([17, 16, 23])).inputs_B, wide[[17, 16, 23]])
    ranges = [
        each.headers["Range"] for each in s3.requests if each.method == "GET" and "Range" in each.headers
    ]
    spans = [tuple(map(int, each.removeprefix("bytes=").split("-"))) for each in ranges]
    assert sum(stop - start + 1 for start, stop in spans) < 2.5 * 8 * 8000 < len(stream.getvalue()) / 3


def test_images_and_shards_on_s3_are_read_as_they_are_on_a_disk(s3: S3) -> None:
    folder = put(s3, {place: encoded(pixels) for place, pixels in zip(PLACES, PIXELS_BHWC, strict=True)})
    source = ImageFolderOptions(root=folder).open()
    assert sum("list-type" in parse_qs(each.query) for each in s3.requests) <= 3
    np.testing.assert_array_equal(source.read(np.array([5, 0])).inputs_B, PIXELS_BHWC[[5, 4]])
    assert source.unchanged()
    put(s3, {"d/new.png": encoded(PIXELS_BHWC[0])})
    assert not source.unchanged()
    shards = put(s3, {f"{n}.tar": tar(images(rows)) for n, rows in enumerate((range(3), range(3, 7)))})
    found = WebDatasetOptions(
        path=f"{shards}/{{0..1}}.tar", label="cls", index=f"{shards}/index.parquet"
    ).open()
    assert found.read(np.arange(7)).problems == {} and found.unchanged()
    assert found.labels(0, 7).tolist() == [3, 1, 4, 1, 5, 9, 2]  # type: ignore[union-attr]
