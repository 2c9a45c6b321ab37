"""Reading a store beside memcpy, numpy, other readers of the same files, and other loaders of the same rows.

Dense float16 of 1,000 classes and three teachers, warm cache, one core. All of it in one run and in turn;
medians of several rounds after one that does not count. Other loaders run in the environment whose Python
SOFTCASK_RIVALS_PYTHON names, each in its own format; one that is not there is said to be missing.

    make bench-store        # this, and the codecs
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorstore
import zarr
from made_stores import logits_like, make_store
from measuring import Cost, command, in_rounds, machine, median, refuse_if_busy, scratch
from numpy.typing import NDArray

from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.reader import Store, open_store
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.lowrank.calibration import Calibration
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.manifest import CodecSpec
from softcask.storage_schemas.zarr_layout import ArrayLayout

CLASSES, TEACHERS, UNIT, BATCH = 1000, 3, 10_000, 512
RANDOM_BATCHES = 40
CACHE = 128 << 20
"""Less than the rows take: what is packed is unpacked in every pass."""
NAMES = [f"t{m}" for m in range(TEACHERS)]
RIVALS = ("datasets", "litdata", "mosaicml-streaming", "webdataset")
HERE = Path(__file__).parent

Work = tuple[Callable[[], object], int]
Table = list[list[str]]


def drain(batches: Iterable[object]) -> None:
    """Ask for all of them."""
    for _ in batches:
        pass


def dense_columns(rows: int) -> list[dict[str, NDArray[Any]]]:
    """What each teacher's rows are kept as."""
    return [Dense16().encode(logits_like(rows, CLASSES, seed)) for seed in range(TEACHERS)]


def dense_store(folder: Path, columns: Sequence[dict[str, NDArray[Any]]], spec: CodecSpec) -> str:
    """A store of these columns."""
    return make_store(
        folder,
        rows=len(columns[0]["row_max"]),
        unit_rows=UNIT,
        classes=CLASSES,
        teachers=TEACHERS,
        codec=spec,
        encoded=lambda m, start, stop: {name: values[start:stop] for name, values in columns[m].items()},
    )


def arrays_by_zarr(uri: str) -> list[Any]:
    """A teacher's logits as zarr-python opens them."""
    return [open_zarr(uri, name) for name in NAMES]


def open_zarr(uri: str, name: str) -> Any:
    """One teacher's."""
    return zarr.open_array(f"{uri}/{keys.logits_group(name, 's0000', 0)}/logits", mode="r")


def arrays_by_tensorstore(uri: str) -> list[Any]:
    """A teacher's logits as tensorstore opens them, on one thread."""
    context = tensorstore.Context(
        {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    )
    found = []
    for name in NAMES:
        path = f"{uri}/{keys.logits_group(name, 's0000', 0)}/logits/"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        found.append(tensorstore.open(spec, context=context, read=True).result())
    return found


def sequential(uri: str, plain: NDArray[np.float16], cache_bytes: int) -> dict[str, Work]:
    """In the rows' order, a unit at a time; memcpy as the bound."""
    rows = plain.shape[1]
    once, always = (
        open_store(uri, cache_bytes=cache_bytes, verify=verify)  # type: ignore[arg-type]
        for verify in ("once", "always")
    )
    slab = np.empty_like(plain)
    by_zarr, by_tensorstore = arrays_by_zarr(uri), arrays_by_tensorstore(uri)
    spans = [slice(start, start + UNIT) for start in range(0, rows, UNIT)]

    def copied() -> None:
        for span in spans:
            np.copyto(slab[:, span], plain[:, span])

    def by(arrays: list[Any], read: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            for span in spans:
                for m, array in enumerate(arrays):
                    slab[m, span] = read(array[span])

        return run

    def ours(store: Store) -> Callable[[], None]:
        out: dict[str, NDArray[Any]] = {}

        def run() -> None:
            nonlocal out
            for span in spans:
                rows_B = np.arange(span.start, span.stop)
                out = store.encoded(NAMES, rows_B, out=out or None)

        return run

    return {
        "memcpy": (copied, rows),
        "softcask": (ours(once), rows),
        "softcask, CRC each time": (ours(always), rows),
        "zarr-python": (by(by_zarr, lambda values: values), rows),
        "tensorstore": (by(by_tensorstore, lambda values: values.read().result()), rows),
    }


def shuffled(uri: str, rows: int, cache_bytes: int) -> dict[str, Work]:
    """Every row once: units at random into pools, rows at random within a pool."""
    store = open_store(uri, cache_bytes=cache_bytes)
    epochs = iter(range(1_000_000))
    return {
        "softcask, pool-shuffled": (
            lambda: drain(store.batches(NAMES, shuffle=(0, next(epochs)))),
            rows,
        )
    }


def random_batches(uri: str, plain: NDArray[np.float16], *, zarr_batches: int = 2) -> dict[str, Work]:
    """Batches of 512 rows from anywhere."""
    rows = plain.shape[1]
    chosen = [np.random.default_rng(n).integers(0, rows, BATCH) for n in range(RANDOM_BATCHES)]
    store, slab = open_store(uri), np.empty((TEACHERS, BATCH, CLASSES), np.float16)
    store.encoded(NAMES, np.arange(rows))  # each chunk's checksum is verified once a process
    by_zarr, by_tensorstore = arrays_by_zarr(uri), arrays_by_tensorstore(uri)
    out: dict[str, NDArray[Any]] = store.encoded(NAMES, chosen[0])

    def gathered() -> None:
        for rows_B in chosen:
            for m in range(TEACHERS):
                np.take(plain[m], rows_B, axis=0, out=slab[m], mode="clip")

    def ours() -> None:
        for rows_B in chosen:
            store.encoded(NAMES, rows_B, out=out)

    def through(arrays: list[Any], read: Callable[[Any, NDArray[np.int64]], Any]) -> Callable[[], None]:
        def run() -> None:
            for rows_B in chosen[:zarr_batches]:
                for m, array in enumerate(arrays):
                    slab[m] = read(array, rows_B)

        return run

    few = zarr_batches * BATCH
    return {
        "numpy gather": (gathered, RANDOM_BATCHES * BATCH),
        "softcask": (ours, RANDOM_BATCHES * BATCH),
        "zarr-python": (through(by_zarr, lambda array, rows_B: array.oindex[rows_B]), few),
        "tensorstore": (through(by_tensorstore, lambda array, rows_B: array[rows_B].read().result()), few),
    }


def rivals(plain: NDArray[np.float16], folder: Path, rounds: int) -> dict[str, tuple[Cost, Cost] | str]:
    """Other loaders: cost in order and shuffled, or why there is none."""
    python = os.environ.get("SOFTCASK_RIVALS_PYTHON")
    if not python:
        return dict.fromkeys(RIVALS, "missing: SOFTCASK_RIVALS_PYTHON names no Python that has it")
    np.save(folder / "logits.npy", plain.transpose(1, 0, 2))
    found: dict[str, tuple[Cost, Cost] | str] = {}
    for name in RIVALS:
        call = [python, str(HERE / "store_reading_rivals.py"), name, str(folder), str(rounds)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            found[name] = "missing: " + (done.stderr.strip().splitlines() or ["it failed"])[-1][:120]
            continue
        told = json.loads(done.stdout.strip().splitlines()[-1])
        costs = [[Cost(cpu=cpu, wall=wall) for cpu, wall in told[way]] for way in ("forwards", "shuffled")]
        found[f"{name} {told['version']}"] = median(costs[0]), median(costs[1])
    return found


def sparse(folder: Path) -> dict[str, Work]:
    """Language-model rows as they are kept, nothing made dense."""
    classes, rows, dimension = 8192, 16_384, 256
    random = np.random.default_rng(0)
    layer_Cd = random.normal(0, 0.25, (classes, dimension)).astype(np.float32)
    hidden_Rd = random.normal(0, 1, (rows, dimension)).astype(np.float32)
    hidden_Rd *= np.linspace(1.5, 0.1, dimension, dtype=np.float32)
    sample_RC = hidden_Rd[:2560] @ layer_Cd.T
    fitted = Calibration.of(sample_RC[:2304], sample_RC[2304:], output_layer=layer_Cd).within_bytes(256)
    topk = TopK(settings=Settings(num_classes=classes, head_size=61))
    works: dict[str, Work] = {}
    for codec in (fitted.codec, topk):
        spec = codec.to_spec()
        columns = [
            codec.encode(hidden_Rd[first : first + 1024] @ layer_Cd.T) for first in range(0, rows, 1024)
        ]
        whole = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        uri = make_store(
            folder / codec.name,
            rows=rows,
            unit_rows=rows // 4,
            classes=classes,
            teachers=1,
            codec=spec,
            encoded=lambda _, start, stop, whole=whole: {n: v[start:stop] for n, v in whole.items()},
        )
        # No room to keep more than the unit that is read: every pass decodes all of them.
        store = open_store(uri, cache_bytes=0)
        works[f"{codec.name}, 256 B"] = (
            lambda store=store: drain(store.batches("t0", batch_rows=4096)),
            rows,
        )
    return works


def one_row(uri: str, rows: int) -> dict[str, Work]:
    """A row of one teacher at a time, its chunk verified before."""
    store = open_store(uri)
    store.encoded(NAMES, np.arange(rows))
    chosen = [np.array([row]) for row in np.random.default_rng(1).integers(0, rows, 2000)]
    return {"one row": (lambda: drain(store.encoded("t0", row) for row in chosen), len(chosen))}


def opening(folder: Path, units: int = 10_000) -> dict[str, Work]:
    """The whole catalog, by someone who has not seen the store."""
    uri = make_store(
        folder,
        rows=units,
        unit_rows=1,
        classes=2,
        teachers=1,
        codec=Dense16().to_spec(),
        encoded=lambda _, start, stop: Dense16().encode(np.zeros((stop - start, 2), np.float32)),
    )
    return {f"open a catalog of {units:,} units": (lambda: open_store(uri), 1)}


def writing(folder: Path, values: NDArray[np.float16]) -> dict[str, Work]:
    """Shards with a checksum a chunk."""
    column = next(column for column in Dense16().columns(CLASSES) if column.name == "logits")
    layout = ArrayLayout(column=column, rows=len(values), unit_rows=UNIT)
    objects = StoreObjects.at(str(folder / "ours"))
    runs = iter(range(1_000_000))
    checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    spans = [slice(start, start + UNIT) for start in range(0, len(values), UNIT)]

    def ours() -> None:
        run = next(runs)
        for index, span in enumerate(spans):
            objects.publish(f"run{run}/{layout.shard_key(index)}", layout.encode_shard(values[span]))

    def by_tensorstore() -> None:
        sharding = {
            "chunk_shape": [layout.chunk_rows, CLASSES],
            "codecs": checked,
            "index_codecs": checked,
        }
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder / f"ts{next(runs)}")},
            "metadata": {
                "shape": list(values.shape),
                "data_type": "float16",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [UNIT, CLASSES]}},
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            },
        }
        array = tensorstore.open(spec, create=True).result()
        for span in spans:
            array[span].write(values[span]).result()

    def by_zarr() -> None:
        array = zarr.create_array(
            str(folder / f"zarr{next(runs)}"),
            shape=values.shape,
            shards=(UNIT, CLASSES),
            chunks=(layout.chunk_rows, CLASSES),
            dtype="float16",
            compressors=[zarr.codecs.Crc32cCodec()],
        )
        for span in spans:
            array[span] = values[span]

    works = {"softcask": ours, "tensorstore": by_tensorstore, "zarr-python": by_zarr}
    return {name: (work, len(values)) for name, work in works.items()}


def bounded(uri: str, rows: int) -> str:
    """How much more memory a reader takes that reads a packed store ten times larger than its bound."""
    store = open_store(uri, cache_bytes=rows * TEACHERS * CLASSES * 2 // 10)
    process = psutil.Process()
    before, most = process.memory_info().rss, 0
    for _ in store.batches(NAMES, batch_rows=BATCH, shuffle=(0, 0)):
        most = max(most, process.memory_info().rss)
    size = rows * TEACHERS * CLASSES * 2
    return (
        f"A reader with cache_bytes of {size / 10 / 2**20:,.0f} MiB read {size / 2**20:,.0f} MiB of "
        f"packed rows, pool-shuffled, with at most {(most - before) / 2**20:,.0f} MiB more resident."
    )


def lines(title: str, header: Sequence[str], rows: Table) -> list[str]:
    """A table in Markdown."""
    rule = ["---", *("---:" for _ in header[1:])]
    return ["", f"## {title}", "", *("| " + " | ".join(row) + " |" for row in [list(header), rule, *rows])]


def beside(works: dict[str, Work], rounds: int, bound: str) -> Table:
    """Rows of a table: costs, and how many times as fast or slow as the first by CPU."""
    costs = {name: median(found) for name, found in in_rounds(works, rounds).items()}
    return [
        [name, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{costs[bound].cpu / cost.cpu:.3g}"]
        for name, cost in costs.items()
    ]


def main() -> None:
    """Run all; write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for store_reading.md")
    parser.add_argument("--force", action="store_true", help="measure though others use the machine")
    parser.add_argument("--skip-rivals", action="store_true")
    arguments = parser.parse_args()
    if not arguments.force:
        refuse_if_busy()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    zarr.config.set({"threading.max_workers": 1})
    told = [
        "# Reading a store",
        "",
        f"`{command()}`",
        "",
        f"{machine()}, pinned to one core; {arguments.rows:,} rows, {TEACHERS} teachers, {CLASSES:,} "
        f"classes, float16, warm cache; medians of {arguments.rounds} rounds. Microseconds a row of all "
        f"{TEACHERS} teachers.",
    ]
    with scratch() as folder:
        columns = dense_columns(arguments.rows)
        plain = np.stack([each["logits"] for each in columns])
        spec = Dense16().to_spec()
        uri = dense_store(folder / "plain", columns, spec)
        packed = dense_store(folder / "packed", columns, spec.model_copy(update={"compression": "blosc"}))
        header = ["", "CPU us", "wall us", "speed over"]
        works = sequential(uri, plain, CACHE) | shuffled(uri, arguments.rows, CACHE)
        told += lines(
            "Whole, uncompressed", [*header[:3], "memcpy = 1"], beside(works, arguments.rounds, "memcpy")
        )
        works = random_batches(uri, plain)
        rows = beside(works, arguments.rounds, "numpy gather")
        told += lines(f"Random batches of {BATCH}, uncompressed", [*header[:3], "numpy gather = 1"], rows)
        works = sequential(packed, plain, CACHE)
        del works["softcask"], works["memcpy"]
        works = {"softcask" if "CRC" in name else name: work for name, work in works.items()}
        rows = beside(works | shuffled(packed, arguments.rows, CACHE), arguments.rounds, "zarr-python")
        told += lines("Whole, blosc-zstd and CRC", [*header[:3], "zarr-python = 1"], rows)
        told += ["", bounded(packed, arguments.rows)]
        if not arguments.skip_rivals:
            table: Table = []
            for name, found in rivals(plain, folder, arguments.rounds).items():
                if isinstance(found, str):
                    table.append([name, found, "", "", ""])
                else:
                    table.append([name, *(f"{v:.2f}" for c in found for v in (c.cpu, c.wall))])
            title = "Other loaders, each in its own format, uncompressed"
            told += lines(title, ["", "in order, CPU us", "wall us", "shuffled, CPU us", "wall us"], table)
        works = writing(folder, plain[0])
        told += lines(
            "Writing one teacher's rows", [*header[:3], "tensorstore = 1"], beside(works, 3, "tensorstore")
        )
        works = sparse(folder)
        costs = {name: median(found) for name, found in in_rounds(works, arguments.rounds).items()}
        rows = [[name, f"{c.cpu:.3f}", f"{c.wall:.3f}", f"{1 / c.cpu:.2f}"] for name, c in costs.items()]
        told += lines("Rows kept sparse, one teacher, in order", [*header[:3], "million rows a second"], rows)
        works = one_row(uri, arguments.rows) | opening(folder / "many")
        costs = {name: median(found) for name, found in in_rounds(works, arguments.rounds).items()}
        rows = [[name, f"{c.cpu:,.1f}", f"{c.wall:,.1f}"] for name, c in costs.items()]
        told += lines("One at a time", ["", "CPU us", "wall us"], rows)
    text = "\n".join(told) + "\n"
    sys.stdout.write(text)
    if arguments.out:
        (arguments.out / "store_reading.md").write_text(text)


if __name__ == "__main__":
    main()
