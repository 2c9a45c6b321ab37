"""Other loaders over the same logits, each in the format it writes itself: run by `rival_loaders.py`.

    PYTHON store_reading_rivals.py LOADER FOLDER ROUNDS [WORKERS]

FOLDER holds `logits.npy`, float16 `[rows, teachers, classes]`. Prints one line of JSON: the loader's version,
and CPU and wall microseconds a row, in the order of the rows and shuffled, a list of one each round. With
WORKERS it is shuffled alone, by so many processes, in batches; the CPU is that of this process.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

BATCH = 512

Read = Callable[[int], Iterable[Any]]
"""From the number of the round to what has to be iterated over."""


def datasets_numpy(logits: np.ndarray, folder: Path, workers: int) -> tuple[Read, Read]:
    """Hugging Face datasets in the format that gives arrays: a list a teacher, a batch at a time."""
    found = saved_dataset(logits, folder).with_format("numpy")
    assert np.array_equal(found[3:5]["t0"], logits[3:5, 0])
    return by_batches(len(logits), lambda chosen: list(found[chosen].values()), workers)


def datasets_arrow(logits: np.ndarray, folder: Path, workers: int) -> tuple[Read, Read]:
    """Hugging Face datasets in its "arrow" format, whose lists are seen as arrays by hand, without a copy."""
    found = saved_dataset(logits, folder).with_format("arrow")
    _, teachers, classes = logits.shape

    def batch(chosen: slice | np.ndarray) -> np.ndarray:
        table = found[chosen]
        slab = np.empty((teachers, len(table), classes), np.float16)
        for m in range(teachers):
            values = table[m].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            slab[m] = values.reshape(-1, classes)
        return slab

    assert np.array_equal(batch(slice(3, 5))[0], logits[3:5, 0])
    return by_batches(len(logits), batch, workers)


def saved_dataset(logits: np.ndarray, folder: Path) -> Any:
    """A column of fixed-size lists a teacher, in Arrow files."""
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    columns = {}
    for m in range(logits.shape[1]):
        values = pa.array(np.ascontiguousarray(logits[:, m]).reshape(-1))
        columns[f"t{m}"] = pa.FixedSizeListArray.from_arrays(values, logits.shape[2])
    shutil.rmtree(folder / "hf", ignore_errors=True)
    Dataset(pa.table(columns)).save_to_disk(str(folder / "hf"))
    return load_from_disk(str(folder / "hf"))


def by_batches(rows: int, batch: Callable[[Any], Any], workers: int) -> tuple[Read, Read]:
    """All rows in batches, in order and at random; by workers, whole batches are asked for at once."""
    if workers:
        from torch.utils.data import BatchSampler, RandomSampler

        sampler = BatchSampler(RandomSampler(range(rows)), BATCH, drop_last=False)
        return both(loader(Batches(batch), batch_size=None, sampler=sampler, num_workers=workers))

    def forwards(_: int) -> Iterable[Any]:
        return (batch(slice(start, start + BATCH)) for start in range(0, rows, BATCH))

    def shuffled(number: int) -> Iterable[Any]:
        order = np.random.default_rng(number).permutation(rows)
        return (batch(order[start : start + BATCH]) for start in range(0, rows, BATCH))

    return forwards, shuffled


class Batches:
    """Batches by the rows asked for, as a map-style dataset."""

    def __init__(self, batch: Callable[[Any], Any]) -> None:
        """Of this."""
        self._batch = batch

    def __getitem__(self, rows: list[int]) -> Any:
        return self._batch(np.array(rows))


def loader(dataset: Any, **options: Any) -> Any:
    """Torch's DataLoader, whose workers stay."""
    from torch.utils.data import DataLoader

    return DataLoader(dataset, persistent_workers=True, **options)


def both(iterable: Any) -> tuple[Read, Read]:
    """The same thing for both ways."""
    return lambda _: iterable, lambda _: iterable


def litdata(logits: np.ndarray, folder: Path, workers: int) -> tuple[Read, Read]:
    """litdata: its own writer, chunks of 64 MB, samples as it decodes them."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    place = emptied(folder / "litdata")
    writer = BinaryWriter(str(place), chunk_bytes=64 << 20)
    for row, sample in enumerate(logits):
        writer[row] = {"logits": sample}
    writer.done()
    writer.merge()
    found = StreamingDataset(str(place))
    assert np.array_equal(found[3]["logits"], logits[3])
    if workers:
        mixed = StreamingDataset(str(place), shuffle=True)
        options = {"batch_size": BATCH, "num_workers": workers, "persistent_workers": True}
        return both(StreamingDataLoader(mixed, **options))
    return lambda _: StreamingDataset(str(place)), lambda _: StreamingDataset(str(place), shuffle=True)


def streaming(logits: np.ndarray, folder: Path, workers: int) -> tuple[Read, Read]:
    """mosaicml-streaming: MDS shards of 64 MB, uncompressed, one array a sample."""
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        # Only its image datasets use it, and it must be of the very build that torch is.
        stand_in = MagicMock(__spec__=ModuleSpec(f"torchvision{name}", None), VisionDataset=object)
        sys.modules.setdefault(f"torchvision{name}", stand_in)
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    place = str(emptied(folder / "mds"))
    shape = ",".join(map(str, logits.shape[1:]))
    with MDSWriter(out=place, columns={"logits": f"ndarray:float16:{shape}"}, size_limit=64 << 20) as writer:
        for sample in logits:
            writer.write({"logits": sample})
    if workers:
        rows = StreamingDataset(local=place, batch_size=BATCH, shuffle=True)
        return both(loader(rows, batch_size=BATCH, num_workers=workers))
    # With the batches of one row that a loader without batches suggests it sleeps most of the time.
    ahead = {"batch_size": BATCH, "predownload": len(logits)}
    found = StreamingDataset(local=place, shuffle=False, **ahead)
    assert np.array_equal(found[3]["logits"], logits[3])
    mixed = StreamingDataset(local=place, shuffle=True, **ahead)
    return lambda _: found, lambda _: mixed


def webdataset(logits: np.ndarray, folder: Path, workers: int) -> tuple[Read, Read]:
    """webdataset: tar shards of at most 10,000 samples, raw bytes, made an array of without a copy."""
    import webdataset as wds

    place = emptied(folder / "wds")
    shape = logits.shape[1:]
    with wds.ShardWriter(
        f"file:{place}/%05d.tar", maxcount=min(10_000, len(logits) // 4), verbose=0
    ) as writer:
        for row, sample in enumerate(logits):
            writer.write({"__key__": f"{row:09d}", "bin": sample.tobytes()})
    shards = [str(path) for path in sorted(place.iterdir())]

    def decoded(sample: dict[str, Any]) -> np.ndarray:
        return np.frombuffer(sample["bin"], np.float16).reshape(shape)

    def forwards(_: int) -> Iterable[Any]:
        return wds.WebDataset(shards, shardshuffle=False, empty_check=False).map(decoded)

    def shuffled(_: int) -> Iterable[Any]:
        return wds.WebDataset(shards, shardshuffle=True, empty_check=False).shuffle(2000).map(decoded)

    assert np.array_equal(next(iter(forwards(0))), logits[0])
    if workers:
        batched = shuffled(0).batched(BATCH)
        return both(wds.WebLoader(batched, batch_size=None, num_workers=workers, persistent_workers=True))
    return forwards, shuffled


def emptied(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


LOADERS = {
    "datasets": datasets_numpy,
    "datasets, arrow": datasets_arrow,
    "litdata": litdata,
    "mosaicml-streaming": streaming,
    "webdataset": webdataset,
}


def measured(read: Read, number: int, rows: int) -> tuple[float, float]:
    """CPU and wall microseconds a row of one pass."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in read(number):
        pass
    return (time.process_time() - cpu) / rows * 1e6, (time.perf_counter() - wall) / rows * 1e6


def main() -> None:
    """Write, read a round that does not count, then the others; print."""
    name, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    workers = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    logits = np.load(folder / "logits.npy")
    reads = dict(zip(("forwards", "shuffled"), LOADERS[name](logits, folder, workers), strict=True))
    if workers:
        del reads["forwards"]
    found: dict[str, Any] = {"version": version(name.split(",")[0]), "forwards": [], "shuffled": []}
    for number in range(rounds + 1):
        for way, read in reads.items():
            cost = measured(read, number, len(logits))
            if number:
                found[way].append(cost)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
