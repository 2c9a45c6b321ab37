"""Somebody's own dataset beside a store: joined by id, told apart by content where that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from softcask.pipeline.student import loader
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.storage_schemas.errors import MisalignedRows, TransferSetError


class Own(Dataset[Any]):
    """Rows of the world in another order, as somebody's own training has them."""

    def __init__(self, world: Any, order: Any) -> None:
        self.inputs, self.order = world.inputs, order
        self.names = [f"row-{row:08d}" for row in order]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.inputs[self.order[index]]
        return {"pixels": torch.from_numpy(row) * 2, "raw": row}


@pytest.fixture
def own(world: Any) -> Own:
    return Own(world, np.random.default_rng(0).permutation(200))


@pytest.mark.parametrize("ids", ["names", "list", "function"])
def test_items_meet_the_targets_of_their_ids(world: Any, own: Own, ids: str) -> None:
    given: Any = {"names": "names", "list": own.names, "function": lambda index: own.names[index]}[ids]
    found = loader(world.store, inputs=own, ids=given, batch_size=48, temperature=1, teachers=["a"])
    powers = np.exp(world.logits["a"].astype(np.float64))
    expected = powers / powers.sum(1, keepdims=True)
    seen = []
    for batch in found:
        rows = own.order[batch.positions_B.numpy()]
        np.testing.assert_array_equal(batch.inputs["pixels"], world.inputs[rows] * 2)
        np.testing.assert_allclose(batch.targets, expected[rows], atol=3e-3)
        np.testing.assert_array_equal(batch.labels_B, world.labels[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(200))


def test_items_are_asked_for_together_where_the_dataset_can(world: Any, own: Own) -> None:
    asked: list[int] = []

    class Many(Own):
        def __getitems__(self, at: list[int]) -> list[Any]:
            asked.append(len(at))
            return [self[index] for index in at]

    many = Many(world, own.order)
    assert len(list(loader(world.store, inputs=many, ids="names", batch_size=64))) == 4
    assert asked == [64, 64, 64, 8]


@pytest.mark.parametrize("form", ["raw", "hexadecimal"])
def test_hashes_that_differ_from_what_the_teachers_saw_are_refused_at_once(
    world: Any, own: Own, form: str
) -> None:
    raw = [bytes(each) for each in content_hashes(world.inputs[own.order])]
    hashes = raw if form == "raw" else [each.hex() for each in raw]
    assert len(loader(world.store, inputs=own, ids="names", hashes=hashes)) == 2
    hashes[17] = hashes[18]
    with pytest.raises(MisalignedRows, match=rf"1 of the 200 rows of the dataset .*\({own.names[17]}\)"):
        loader(world.store, inputs=own, ids="names", hashes=hashes)


@pytest.mark.parametrize("form", ["array", "hash"])
def test_a_function_of_an_item_tells_its_content_when_it_comes(world: Any, own: Own, form: str) -> None:
    def content(item: dict[str, Any]) -> Any:
        row = np.asarray(item["raw"])
        return row if form == "array" else bytes(content_hashes(row[None])[0])

    options: dict[str, Any] = {"inputs": own, "ids": "names", "hashes": content}
    assert sum(map(len, loader(world.store, **options))) == 200
    own.inputs = own.inputs.copy()
    own.inputs[own.order[17], 0] += 1
    with pytest.raises(MisalignedRows, match=rf"other content here .*{own.names[17]}"):
        list(loader(world.store, **options))


def test_without_hashes_the_ids_alone_are_compared(world: Any, own: Own) -> None:
    own.inputs = own.inputs + 1
    assert sum(map(len, loader(world.store, inputs=own, ids="names"))) == 200


def test_a_dataset_with_more_rows_than_the_store_is_met_where_both_have_them(world: Any, own: Own) -> None:
    names = [*own.names[:-1], "somebody-else"]
    with pytest.raises(MisalignedRows, match=r'1 of 200 inputs have no row .*coverage="intersection"'):
        loader(world.store, inputs=own, ids=names)
    assert sum(map(len, loader(world.store, inputs=own, ids=names, coverage="intersection"))) == 199


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "joined by id, and none are given"),
        ({"ids": "nmaes"}, "ids are said to be 'nmaes' of the Own"),
        ({"ids": ["row-00000000"]}, "1 ids are given for 200 items"),
        ({"ids": list(range(200))}, r"an id is 0 \(int\)"),
        ({"ids": "names", "hashes": ["00" * 16]}, "1 hashes are given for 200 items"),
        ({"ids": "names", "hashes": ["00" * 7] * 200}, "a content hash has 7 bytes, expected 16"),
        ({"ids": "names", "hashes": ["xy"] * 200}, "no content hash and no row to hash"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(
    world: Any, own: Own, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TransferSetError, match=message):
        loader(world.store, inputs=own, **options)


def test_inputs_without_items_by_index_are_refused(world: Any) -> None:
    with pytest.raises(TransferSetError, match="inputs are a generator, expected"):
        loader(world.store, inputs=(row for row in world.inputs), ids=["a"])


def test_what_a_dataset_needs_is_refused_of_a_transfer_set(world: Any) -> None:
    with pytest.raises(
        TransferSetError, match="ids is given for a dataset's items, but a transfer set has its"
    ):
        loader(world.store, inputs=world.source(), ids=["a"])
    with pytest.raises(TransferSetError, match="there are no inputs"):
        loader(world.store, hashes=[])
