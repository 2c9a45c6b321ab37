"""Stores changed at random, their checksums right: a few in every run, 1,000 of them by `make fuzz`."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.pipeline.store.forging import FOREIGN, Forgery, places_in, put, resealed_shard, take
from tests.pipeline.store.watched_reading import Workshop
from tests.stores import flip

EXAMPLES = int(os.environ.get("SOFTCASK_HOSTILE_EXAMPLES", "20"))
"""Stores that are made at random; the whole sweep takes 1,000."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("hostile"))
    yield made
    made.reader.close()


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": [value]}
    return value


VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 7, 2**31 - 1, 2**31, 2**47, 2**48, 2**63, 2**64, 10**40, 0.5, -0.0, 1e-300, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        "..",
        "/",
        "../outside/secret",
        "/etc/passwd",
        "s3://bucket/key",
        "memory://x",
    ),
    *(
        "\ud800",
        "\0",
        "a" * 300,
        "s0000",
        "s0001",
        "zarr",
        "parquet",
        "blosc",
        "none",
        "ans",
        "dense8",
        "topk",
    ),
    *("lowrank", "00000000", None, True, False, [], {}, [[]], {"": None}, deep(20)),
)
"""What stands in documents where something else is expected."""
ARRAY_VALUES: tuple[Any, ...] = (
    *("big", "start", "v2", "rectilinear", "float32", "crc32c", "gzip", "transpose", "sharding_indexed"),
    *([1, 1], [8, 5], [2**40, 5], [2**31 - 1, 1], {"name": "crc32c"}, [{"name": "bytes"}]),
)
"""What stands in those of arrays."""


@st.composite
def forgeries(draw: st.DrawFn, base: Forgery) -> Forgery:
    """A store that is changed in one to four places, and consistent again."""
    forgery = base.copy()
    for _ in range(draw(st.integers(1, 4))):
        draw(st.sampled_from(CHANGES))(forgery, draw)
    return forgery


def change_array(forgery: Forgery, draw: st.DrawFn) -> None:
    """What the document of an array that another tool wrote says of it."""
    key = f"{FOREIGN}/zarr.json"
    document = json.loads(forgery.raw[key])
    where = draw(st.sampled_from(list(places_in(document))))
    put(document, where, draw(st.sampled_from((*VALUES, *ARRAY_VALUES)) | st.integers(0, 12)))
    forgery.raw[key] = json.dumps(document).encode()


def change_document(forgery: Forgery, draw: st.DrawFn) -> None:
    key = draw(st.sampled_from(sorted(forgery.documents)))
    where = draw(st.sampled_from(list(places_in(forgery.documents[key]))))
    what = draw(st.sampled_from(("set", "delete", "repeat", "borrow")))
    inside = take(forgery.documents[key], where[:-1])
    if what == "delete":
        del inside[where[-1]]
    elif what == "repeat" and isinstance(inside, list):
        inside += inside[:100]
    elif what == "borrow":
        other = forgery.documents[draw(st.sampled_from(sorted(forgery.documents)))]
        put(
            forgery.documents[key],
            where,
            copy.deepcopy(take(other, draw(st.sampled_from(list(places_in(other)))))),
        )
    else:
        put(
            forgery.documents[key], where, draw(st.sampled_from(VALUES) | st.integers() | st.text(max_size=5))
        )


def change_commit(forgery: Forgery, draw: st.DrawFn) -> None:
    rows = forgery.rows[draw(st.sampled_from(sorted(forgery.rows)))]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    where = draw(st.sampled_from(list(places_in(row))))
    put(row, where, draw(st.sampled_from(VALUES) | st.integers(-(2**63), 2**63 - 1)))


def change_bytes(forgery: Forgery, draw: st.DrawFn) -> None:
    """One or more bits of an object, its length, or all of it; its record says so."""
    key = draw(
        st.sampled_from([key for key in sorted(forgery.raw) if "zarr.json" not in key or FOREIGN in key])
    )
    data = forgery.raw[key]
    what = draw(st.sampled_from(("bits", "bits", "bits", "cut", "grow", "fill")))
    if what == "bits" and data:
        for _ in range(draw(st.integers(1, 3))):
            # Towards the end, where Parquet and shards keep what says where all else is.
            place = draw(st.integers(0, len(data) - 1) | st.integers(max(0, len(data) - 200), len(data) - 1))
            data = flip(data, place, draw(st.integers(0, 7)))
    elif what == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif what == "grow":
        data += draw(st.binary(max_size=40))
    else:
        data = draw(st.binary(max_size=40))
    forgery.raw[key] = data


def change_shard(forgery: Forgery, draw: st.DrawFn) -> None:
    """Other chunks, all checksums right."""
    key = draw(st.sampled_from([key for key in sorted(forgery.raw) if "/c/" in key and FOREIGN not in key]))
    data = forgery.raw[key]
    chunk = bytearray(data[: int.from_bytes(data[-12:-4], "little") - 4])
    for _ in range(draw(st.integers(1, 4))):
        chunk[draw(st.integers(0, len(chunk) - 1))] = draw(
            st.sampled_from((0, 1, 0x7C, 0x7F, 0x80, 0xFC, 0xFF))
        )
    index = draw(st.none() | st.tuples(numbers(), numbers()))
    forgery.raw[key] = resealed_shard(
        [bytes(chunk)], [index] if index else None, draw(st.sampled_from((1, 1, 2)))
    )


def numbers() -> st.SearchStrategy[int]:
    return st.integers(0, 2**64 - 1) | st.integers(0, 200)


def exchange(forgery: Forgery, draw: st.DrawFn) -> None:
    """An object in another's place."""
    pair = st.sampled_from(sorted(forgery.raw))
    first, second = draw(pair), draw(pair)
    forgery.raw[first], forgery.raw[second] = forgery.raw[second], forgery.raw[first]


CHANGES = (change_document, change_commit, change_bytes, change_shard, change_array, exchange)


@settings(
    max_examples=EXAMPLES,
    phases=(Phase.explicit, Phase.generate),  # what is found is told at once: to shrink it takes minutes
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(data=st.data())
def test_a_store_changed_at_random_ends_in_an_error_of_softcasks(
    workshop: Workshop, data: st.DataObject
) -> None:
    assert workshop.outcome(data.draw(forgeries(workshop.base))) == []
