"""What `store_reading.py` measures: each function gives pieces of work by name, each with its rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
from fsspec.spec import AbstractFileSystem
from made_stores import Encoded, logits_like, make_store
from numpy.typing import NDArray

from softcask.pipeline.plan import choose_unit_rows
from softcask.pipeline.store.access.local_objects import publish_file
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.lowrank.settings import Settings
from softcask.storage_schemas.manifest import CodecSpec
from softcask.storage_schemas.zarr_layout import ArrayLayout

CLASSES, TEACHERS, BATCH = 1000, 3, 512
NAMES = [f"t{m}" for m in range(TEACHERS)]
_BASE_ROWS = 4096
_VOCABULARY, _TOKENS, _TOKENS_A_UNIT = 49_152, 1 << 17, 1 << 14
_ONE_THREAD = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}

Works = dict[str, tuple[Callable[[], object], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Logits, and the stores that they lie in.

    Attributes:
        rows: Rows.
        unit_rows: Rows a unit, as `softcask plan` chooses them.
        plain: Place of the store without compression.
        packed: Place of the one with blosc-zstd.
        halves_MRC: The logits of all teachers as they are stored, in memory.
    """

    rows: int
    unit_rows: int
    plain: Path
    packed: Path
    halves_MRC: NDArray[np.float16]


def make(folder: Path, rows: int) -> Made:
    """Both stores, of equal logits."""
    base = Dense16().encode(logits_like(_BASE_ROWS, CLASSES))
    row_bytes = sum(column.row_bytes for column in Dense16().columns(CLASSES))
    unit_rows = choose_unit_rows(rows=rows, row_bytes=row_bytes, batch_size=BATCH)
    at_MR = (np.arange(rows) * 7 + 13 * np.arange(TEACHERS)[:, None]) % _BASE_ROWS

    def encoded(m: int, start: int, stop: int) -> Encoded:
        return {name: values[at_MR[m, start:stop]] for name, values in base.items()}

    places = {}
    for compression in ("none", "blosc"):
        places[compression] = folder / compression
        make_store(
            places[compression],
            rows=rows,
            unit_rows=unit_rows,
            classes=CLASSES,
            teachers=TEACHERS,
            codec=CodecSpec(name="dense16", compression=compression),
            encoded=encoded,
        )
    return Made(
        rows=rows,
        unit_rows=unit_rows,
        plain=places["none"],
        packed=places["blosc"],
        halves_MRC=np.stack([base["logits"][at_MR[m]] for m in range(TEACHERS)]),
    )


def sequential(made: Made) -> Works:
    """All rows in order."""
    whole_MRC = np.empty_like(made.halves_MRC)
    batch_MBC = np.empty((TEACHERS, BATCH, CLASSES), np.float16)

    def by_batch() -> None:
        for start in range(0, made.rows, BATCH):
            batch_MBC[:] = made.halves_MRC[:, start : start + BATCH]

    once, always = open_store(str(made.plain)), open_store(str(made.plain), verify="always")
    work = {
        "memcpy": lambda: np.copyto(whole_MRC, made.halves_MRC),
        "memcpy, all into one batch": by_batch,
        "softcask": lambda: exhaust(once),
        "softcask, CRC each time": lambda: exhaust(always),
        "zarr-python": lambda: in_batches(zarr_arrays(made.plain), made.rows),
        "tensorstore": lambda: in_batches(tensorstore_arrays(made.plain), made.rows),
    }
    return {name: (each, made.rows) for name, each in work.items()}


def shuffled(made: Made) -> Works:
    """All rows, mixed."""
    store = open_store(str(made.plain))
    return {"softcask, pools of units": (lambda: exhaust(store, shuffle=(0, 0)), made.rows)}


def random_batches(made: Made) -> Works:
    """Batches drawn from all rows."""
    random = np.random.default_rng(0)
    few, many = 2, 64
    drawn = [random.integers(0, made.rows, BATCH) for _ in range(many)]
    slab_MBC = np.empty((TEACHERS, BATCH, CLASSES), np.float16)
    store = open_store(str(made.plain))
    exhaust(store)

    def gathered() -> None:
        for rows_B in drawn:
            for m in range(TEACHERS):
                slab_MBC[m] = made.halves_MRC[m][rows_B]

    def taken() -> None:
        for rows_B in drawn:
            for m in range(TEACHERS):
                np.take(made.halves_MRC[m], rows_B, axis=0, out=slab_MBC[m], mode="clip")

    def ours() -> None:
        out = None
        for rows_B in drawn:
            out = store.encoded(NAMES, rows_B, out=out)

    def others(arrays: list[Any], select: Callable[[Any, NDArray[np.int64]], Any]) -> None:
        for rows_B in drawn[:few]:
            for m, array in enumerate(arrays):
                slab_MBC[m] = select(array, rows_B)

    by_zarr, by_tensorstore = zarr_arrays(made.plain), tensorstore_arrays(made.plain)
    return {
        "numpy gather": (gathered, many * BATCH),
        "numpy gather, np.take into the batch": (taken, many * BATCH),
        "softcask": (ours, many * BATCH),
        "zarr-python": (lambda: others(by_zarr, lambda array, rows_B: array.oindex[rows_B]), few * BATCH),
        "tensorstore": (
            lambda: others(by_tensorstore, lambda array, rows_B: array[rows_B].read().result()),
            few * BATCH,
        ),
    }


def packed(made: Made) -> Works:
    """All rows in order, out of packed chunks, whole ones at a time: they are not kept, nor is their CRC."""
    store = open_store(str(made.packed))
    work = {
        "softcask": lambda: exhaust(store),
        "zarr-python": lambda: in_batches(zarr_arrays(made.packed), made.rows),
        "tensorstore": lambda: in_batches(tensorstore_arrays(made.packed), made.rows),
    }
    return {name: (each, made.rows) for name, each in work.items()}


def writing(folder: Path, made: Made) -> Works:
    """The logits of all teachers, a unit at a time, with checksums: shards of 32 MB."""
    column = Dense16().columns(CLASSES)[0]
    rows = min(made.rows, 1 << 15)
    layout = ArrayLayout(column=column, rows=rows, unit_rows=min(rows, 1 << 14))
    starts = range(0, rows, layout.unit_rows)

    def place(name: str) -> list[Path]:
        shutil.rmtree(folder / name, ignore_errors=True)
        arrays = [folder / name / str(m) for m in range(TEACHERS)]
        for array in arrays:
            array.mkdir(parents=True)
            (array / "zarr.json").write_bytes(layout.metadata())
        return arrays

    def ours(publish: Callable[[Path, bytes], object], name: str) -> None:
        for m, array in enumerate(place(name)):
            for start in starts:
                shard = layout.encode_shard(made.halves_MRC[m, start : start + layout.unit_rows])
                path = array / layout.shard_key(start // layout.unit_rows).split("/", 1)[1]
                path.parent.mkdir(parents=True)
                publish(path, shard)

    def others(name: str, opened: Callable[[Path], Any], write: Callable[[Any, slice, Any], object]) -> None:
        for m, path in enumerate(place(name)):
            array = opened(path)
            for start in starts:
                rows_U = slice(start, start + layout.unit_rows)
                write(array, rows_U, made.halves_MRC[m, rows_U])

    work = {
        "softcask": lambda: ours(Path.write_bytes, "ours"),
        "softcask, made durable and published": lambda: ours(publish_file, "published"),
        "tensorstore": lambda: others(
            "tensorstore", opened_by_tensorstore, lambda array, at, rows_UC: array[at].write(rows_UC).result()
        ),
        "zarr-python": lambda: others(
            "zarr",
            lambda path: zarr.open_array(path, mode="r+"),
            lambda array, at, rows_UC: array.__setitem__(at, rows_UC),
        ),
    }
    return {name: (each, rows) for name, each in work.items()}


def one_row(made: Made) -> Works:
    """Single rows at random, of one teacher."""
    store = open_store(str(made.plain))
    exhaust(store)
    drawn = [np.array([row]) for row in np.random.default_rng(0).integers(0, made.rows, 5000)]
    return {
        "one row as stored": (lambda: [store.encoded("t0", row_1) for row_1 in drawn], len(drawn)),
        "one row, decoded to float32": (lambda: [store.logits("t0", row_1) for row_1 in drawn], len(drawn)),
    }


def sequences(folder: Path) -> Works:
    """Tokens of a language model in Parquet parts, about 256 bytes each on disk."""
    settings = Settings(num_classes=_VOCABULARY, head_size=24, rank=576, step=0.045, coefficient_bytes=288)
    codec = Lowrank(settings=settings)
    random = np.random.default_rng(0)

    def encoded(_: int, start: int, stop: int) -> Encoded:
        made = {}
        for column in codec.columns(_VOCABULARY):
            shape = (stop - start, *column.row_shape)
            likely = np.clip(random.normal(128, 4, shape).round(), 0, 255)
            made[column.name] = (
                likely.astype("u1") if column.name == "coefficients" else random.integers(0, 256, shape, "u1")
            )
        return made

    uri = make_store(
        folder,
        rows=_TOKENS,
        unit_rows=_TOKENS_A_UNIT,
        classes=_VOCABULARY,
        teachers=1,
        codec=codec.to_spec(),
        encoded=encoded,
    )
    part = next(folder.glob("teachers/t0/logits/**/*.parquet"))
    name = f"{part.stat().st_size / _TOKENS_A_UNIT:.0f} bytes a token on disk"
    store = open_store(uri, cache_bytes=0)
    return {"softcask": (lambda: [None for _ in store.batches("t0")], _TOKENS), name: (lambda: None, _TOKENS)}


def opening(folder: Path, units: int, rounds: int) -> tuple[float, int]:
    """Seconds to open a store of so many units, median; and calls that list, counted in another opening."""
    make_store(
        folder,
        rows=units * 8,
        unit_rows=8,
        classes=10,
        teachers=1,
        codec=CodecSpec(name="dense16"),
        encoded=lambda _, start, stop: Dense16().encode(logits_like(stop - start, 10)),
    )
    took = []
    for _ in range(max(rounds, 5)):
        started = time.perf_counter()
        open_store(str(folder))
        took.append(time.perf_counter() - started)
    return float(np.median(took)), _listings(folder)


def _listings(folder: Path) -> int:
    listed: list[str] = []
    store = open_store(str(folder))
    filesystem: AbstractFileSystem = store.objects.fs
    kept = {name: getattr(type(filesystem), name) for name in ("ls", "find", "glob", "walk")}
    try:
        for name, real in kept.items():
            setattr(type(filesystem), name, _counting(listed, name, real))
        open_store(str(folder)).logits("t0", np.arange(4))
    finally:
        for name, real in kept.items():
            setattr(type(filesystem), name, real)
    return len(listed)


def _counting(listed: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def count(*arguments: Any, **named: Any) -> Any:
        listed.append(name)
        return real(*arguments, **named)

    return count


def memory(made: Made) -> str:
    """How far a reader's own memory grows over a store at least ten times larger than what it may keep."""
    bound = made.halves_MRC.nbytes // 12
    store = open_store(str(made.packed), cache_bytes=bound)
    exhaust(store, end=2)
    before, most = _own_bytes(), 0
    for number, _ in enumerate(store.batches(NAMES, batch_rows=BATCH, shuffle=(0, 0))):
        if number % 16 == 0:
            most = max(most, _own_bytes())
    return (
        f"A reader that may keep {bound >> 20} MiB of unpacked rows grew by {(most - before) >> 20} MiB over "
        f"{made.halves_MRC.nbytes >> 20} MiB of them, shuffled (memory of its own: RssAnon)."
    )


def _own_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def exhaust(store: Store, shuffle: tuple[int, int] | None = None, end: int | None = None) -> None:
    """Read batches of all teachers: all, or the first few."""
    for number, _ in enumerate(store.batches(NAMES, batch_rows=BATCH, shuffle=shuffle)):
        if number == end:
            return


def in_batches(arrays: list[Any], rows: int) -> None:
    """Read arrays batch by batch into one."""
    batch_MBC = np.empty((len(arrays), BATCH, CLASSES), np.float16)
    for start in range(0, rows, BATCH):
        for m, array in enumerate(arrays):
            batch_MBC[m] = array[start : start + BATCH]


def zarr_arrays(store: Path) -> list[Any]:
    """The teachers' logits by zarr-python."""
    return [zarr.open_array(_array(store, name), mode="r") for name in NAMES]


def tensorstore_arrays(store: Path) -> list[Any]:
    """The teachers' logits by tensorstore, with one thread to copy and one to read."""
    return [opened_by_tensorstore(_array(store, name)) for name in NAMES]


def opened_by_tensorstore(array: Path) -> Any:
    """An array on disk."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{array}/"}}
    return tensorstore.open(spec, context=tensorstore.Context(_ONE_THREAD)).result()


def _array(store: Path, teacher: str) -> Path:
    return store / "teachers" / teacher / "logits" / "s0000" / "v0000" / "logits"
