"""A small labelled world: inputs on disk, and a real store of two teachers' logits over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.store.writing.commit import commit_unit
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.store.writing.sealing import seal
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import CodecSpec, TeacherManifest

C, D, UNIT_ROWS = 5, 12, 64
TEACHERS = ("a", "b")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass
class World:
    """Inputs, labels and logits, and where they lie."""

    folder: Path
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    logits: dict[str, NDArray[np.float32]]

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    def source(self, **options: Any) -> TransferSet:
        return ArraysOptions(
            kind="arrays", inputs=str(self.folder / "inputs.npy"), id_prefix="row", **options
        ).open()

    def save(self, **arrays: NDArray[Any]) -> None:
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)


def write_store(world: World, labels: str | None, units: Sequence[int] | None = None) -> None:
    """A sealed store; `units`: the ones of teacher b to commit, None for all."""
    source = world.source(labels=labels)
    objects = StoreObjects.at(world.store)
    prepare_root(objects, [f"class{c}" for c in range(C)])
    segment = prepare_segment(
        objects,
        "s0000",
        source=source.describe(),
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        unit_rows=UNIT_ROWS,
        index=lambda: index_rows(source, num_classes=C, max_quarantined=0.5),
        choose_unit_rows=lambda rows: UNIT_ROWS,
    )
    table = read_rows(objects, segment)
    readable = table["quarantine"].is_null().to_numpy()
    ids, stored = table["sample_id"].to_pylist(), table["label"].fill_null(-1).to_numpy().astype(np.int64)
    for name in TEACHERS:
        teacher = TeacherManifest(
            name=name,
            kind="torch",
            role="member",
            num_classes=C,
            batch_size=32,
            codec=CodecSpec(name="dense16"),
            fingerprint={"weights": name},
            recorded={},
        )
        objects.publish(keys.teacher_manifest(name), teacher.to_bytes())
        for index in range(segment.units) if name == "a" or units is None else units:
            start, stop = segment.unit_range(index)
            part = UnitRows(
                segment=segment,
                view=0,
                index=index,
                sample_ids=pa.array(ids[start:stop], pa.string()),
                labels=stored[start:stop],
                readable=readable[start:stop],
            )
            commit_unit(objects, teacher, part, world.logits[name][start:stop][readable[start:stop]])
    seal(objects)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Makes inputs `[rows, 12]` of 5 noisy classes, and a store of what two linear teachers think of them."""

    def make(
        rows: int = 200, *, labelled: bool = True, unreadable: int | None = None, units: Any = None
    ) -> World:
        random = np.random.default_rng(8)
        directions = random.normal(size=(D, C)).astype(np.float32)
        inputs = random.normal(size=(rows, D)).astype(np.float32)
        exact = inputs @ directions
        logits = {name: (2 * exact + random.normal(size=(rows, C))).astype(np.float32) for name in TEACHERS}
        noisy = exact + 2 * random.normal(size=(rows, C))
        if unreadable is not None:
            inputs[unreadable, 3] = np.nan
        world = World(tmp_path, inputs, noisy.argmax(1).astype(np.int64), logits)
        world.save(inputs=world.inputs, labels=world.labels)
        write_store(world, str(tmp_path / "labels.npy") if labelled else None, units)
        return world

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
