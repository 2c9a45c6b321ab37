"""Several stores as one: in proportion, in turns of their own, resumed in the middle."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from tests.stores import MadeStore

from softcask.pipeline.store.writing.sealing import seal
from softcask.pipeline.student import StudentLoader, loader, part
from softcask.storage_schemas.errors import ConfigError

Rows = list[tuple[int, int]]


@pytest.fixture
def stores(tmp_path: Any) -> list[MadeStore]:
    """Two stores of the same classes, of 40 and of 10 rows."""
    made = []
    for number, rows in enumerate((40, 10)):
        store = MadeStore.at(str(tmp_path / f"store{number}"))
        store.add_segment(rows)
        store.add_teacher("alpha", seed=number)
        store.commit_all()
        seal(store.objects)
        made.append(store)
    return made


def mixture(stores: list[MadeStore], **options: Any) -> StudentLoader:
    return loader([part(store.objects.uri) for store in stores], **{"batch_size": 10, **options})


def rows_of(batches: Any) -> list[Rows]:
    return [list(zip(batch.sources_B.tolist(), batch.rows_B.tolist(), strict=True)) for batch in batches]


def test_each_row_comes_once_an_epoch_where_nothing_else_is_said(stores: list[MadeStore]) -> None:
    found = rows_of(mixture(stores))
    assert sorted(row for batch in found for row in batch) == [(0, row) for row in range(40)] + [
        (1, row) for row in range(10)
    ]
    assert [sum(source for source, _ in batch) for batch in found] == [2] * 5


def test_every_batch_has_its_share_of_each_with_the_targets_of_their_own_store(
    stores: list[MadeStore],
) -> None:
    for batch in mixture(stores, mix=[1, 1], epochs=4):
        assert batch.sources_B is not None
        assert batch.sources_B.sum() == 5
        for number, store in enumerate(stores):
            own = batch.sources_B == number
            logits = store.readable_logits("alpha")[batch.rows_B[own]].astype(np.float64)
            expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            np.testing.assert_allclose(batch.targets[own], expected, atol=3e-3)


def test_a_small_store_begins_anew_when_all_of_its_rows_have_come(stores: list[MadeStore]) -> None:
    rows = [row for batch in rows_of(mixture(stores, mix=[1, 1], epochs=2)) for row in batch]
    small = [row for source, row in rows if source == 1]
    assert len(small) == 50
    turns = [small[first : first + 10] for first in range(0, 50, 10)]
    assert all(sorted(turn) == list(range(10)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


@pytest.mark.parametrize("consumed", [1, 4, 5, 7])
def test_a_mixture_goes_on_where_it_was_left(stores: list[MadeStore], consumed: int) -> None:
    expected = rows_of(mixture(stores, mix=[3, 2], epochs=2))
    found = mixture(stores, mix=[3, 2], epochs=2)
    begun = rows_of(islice(iter(found), consumed))
    state = json.loads(json.dumps(found.state_dict()))
    resumed = mixture(stores, mix=[3, 2], epochs=2)
    resumed.load_state_dict(state)
    assert begun + rows_of(resumed) == expected


def test_inputs_of_several_datasets_lie_where_their_rows_do(stores: list[MadeStore]) -> None:
    class Own(torch.utils.data.Dataset[Any]):
        def __init__(self, number: int, rows: int) -> None:
            self.number, self.rows = number, rows

        def __len__(self) -> int:
            return self.rows

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"x": torch.tensor([self.number, index])}

    parts = [
        part(store.objects.uri, inputs=Own(number, rows), ids=lambda index: f"id-{index:03d}")
        for number, (store, rows) in enumerate(zip(stores, (40, 10), strict=True))
    ]
    for batch in loader(parts, batch_size=10):
        expected = torch.stack([batch.sources_B, batch.positions_B], 1)  # type: ignore[list-item]
        assert torch.equal(batch.inputs["x"], expected)


def test_rows_of_other_shapes_are_refused_when_they_meet(stores: list[MadeStore]) -> None:
    def own(width: int, rows: int) -> Any:
        return [torch.zeros(width)] * rows

    parts = [
        part(store.objects.uri, inputs=own(width, rows), ids=lambda index: f"id-{index:03d}")
        for store, width, rows in zip(stores, (3, 4), (40, 10), strict=True)
    ]
    with pytest.raises(ConfigError, match=r"rows of \[3\] torch.float32 and rows of \[4\] torch"):
        list(loader(parts))


@pytest.mark.parametrize("mix", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -1.0]])
def test_shares_that_make_no_sense_are_refused(stores: list[MadeStore], mix: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected a number above 0 for each"):
        mixture(stores, mix=mix)


def test_a_share_too_small_for_a_row_is_refused(stores: list[MadeStore]) -> None:
    with pytest.raises(ConfigError, match="part 1 has no row in an epoch of 50"):
        mixture(stores, mix=[1000, 1])


def test_what_does_not_go_together_is_refused(stores: list[MadeStore], tmp_path: Any) -> None:
    other = MadeStore.at(str(tmp_path / "other"), class_names=("a", "b", "c"))
    other.add_segment(10)
    other.add_teacher("alpha")
    other.commit_all()
    seal(other.objects)
    with pytest.raises(ConfigError, match="have other classes"):
        mixture([*stores, other])
    with pytest.raises(ConfigError, match="nothing to mix"):
        loader(stores[0].objects.uri, mix=[1])
    with pytest.raises(ConfigError, match=r"teachers belongs to a part: give it to student.part"):
        loader([part(stores[0].objects.uri)], teachers=["alpha"])
    with pytest.raises(ConfigError, match="expected a store, or a list of"):
        loader([])
