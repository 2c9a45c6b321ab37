"""Batches: the right targets beside the right inputs, in an order that seed and epoch decide."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.student.loader import SoftTargetLoader
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.storage_schemas.errors import IncompleteStore, MisalignedRows, StoreError, TransferSetError


def loader(
    world: Any, source: TransferSet | None = None, allow_partial: bool = False, **options: Any
) -> SoftTargetLoader:
    targets = SoftTargets(open_store(world.store, allow_partial=allow_partial))
    return SoftTargetLoader(source or world.source(), targets, **{"batch_size": 48, **options})


def served(found: SoftTargetLoader, epoch: int = 0) -> NDArray[np.int64]:
    return np.concatenate([batch.positions_B for batch in found.epoch(epoch)])


def mean_softmax(world: Any, temperature: float) -> NDArray[np.float64]:
    def softmax(z: NDArray[np.float32]) -> NDArray[np.float64]:
        powers = np.exp(z.astype(np.float64) / temperature)
        return np.asarray(powers / powers.sum(1, keepdims=True))

    return (softmax(world.logits["a"]) + softmax(world.logits["b"])) / 2


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_each_row_comes_once_an_epoch_with_its_own_targets_and_label(
    world: Any, temperature: float, cache_bytes: int
) -> None:
    found = loader(world, temperature=temperature, cache_bytes=cache_bytes)
    expected = mean_softmax(world, temperature)
    batches = list(found.epoch(0))
    assert [len(batch.labels_B) for batch in batches] == [48, 48, 48, 48, 8]
    assert len(found) == 5
    assert sorted(served(found)) == list(range(200))
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs_B, world.inputs[batch.positions_B])
        np.testing.assert_array_equal(batch.labels_B, world.labels[batch.positions_B])
        assert batch.targets_BC is not None
        np.testing.assert_allclose(
            batch.targets_BC, expected[batch.positions_B], atol=3e-3
        )  # float16 is kept


def test_logits_or_nothing_come_where_that_is_what_the_loss_needs(world: Any) -> None:
    logits = next(loader(world, needs="logits").epoch(0))
    mean = (world.logits["a"] + world.logits["b"]) / 2
    assert logits.targets_BC is not None
    np.testing.assert_allclose(logits.targets_BC, mean[logits.positions_B], atol=2e-2)
    assert next(loader(world, needs="labels").epoch(0)).targets_BC is None


def test_seed_and_epoch_alone_decide_the_order(world: Any) -> None:
    fresh = served(loader(world, seed=3), epoch=2)
    later = loader(world, seed=3)
    served(later, epoch=0)
    np.testing.assert_array_equal(served(later, epoch=2), fresh)
    assert (served(later, epoch=1) != fresh).any()
    assert (served(loader(world, seed=4), epoch=2) != fresh).any()
    assert (np.sort(fresh) != fresh).any()


def test_inputs_in_another_order_still_meet_their_own_targets(world: Any) -> None:
    order = np.random.default_rng(0).permutation(200)
    world.save(
        inputs=world.inputs[order],
        labels=world.labels[order],
        ids=[f"row-{position:08d}" for position in order],
    )
    batch = next(loader(world, world.source(ids=str(world.folder / "ids.npy")), temperature=1).epoch(0))
    assert batch.targets_BC is not None
    np.testing.assert_allclose(batch.targets_BC, mean_softmax(world, 1)[order[batch.positions_B]], atol=3e-3)


def test_inputs_that_the_store_does_not_have_are_counted_and_named(world: Any) -> None:
    world.save(inputs=np.concatenate([world.inputs, world.inputs[:2] + 1]))
    with pytest.raises(
        MisalignedRows, match=r"2 of 202 inputs have no row in .* \(row-00000200, row-00000201\)"
    ):
        loader(world)


def test_stored_rows_without_an_input_are_counted_and_named(world: Any) -> None:
    world.save(inputs=world.inputs[:-1])
    with pytest.raises(MisalignedRows, match=r"1 of 200 stored rows have no input here \(row-00000199\)"):
        loader(world)


def test_the_intersection_is_served_where_it_is_asked_for(world: Any) -> None:
    world.save(inputs=np.concatenate([world.inputs[:150], world.inputs[:2] + 1]))
    ids = [f"row-{position:08d}" for position in [*range(150), 900, 901]]
    world.save(ids=np.array(ids))
    found = loader(world, world.source(ids=str(world.folder / "ids.npy")), coverage="intersection")
    assert sorted(served(found)) == list(range(150))


def test_two_sides_without_a_common_row_are_refused_even_for_the_intersection(world: Any) -> None:
    world.save(ids=np.array([f"other-{position}" for position in range(200)]))
    with pytest.raises(MisalignedRows, match=r"200 of 200 inputs have no row.*id_prefix"):
        loader(world, world.source(ids=str(world.folder / "ids.npy")), coverage="intersection")


def test_one_changed_input_is_named_when_it_is_first_served(world: Any) -> None:
    world.inputs[17, 0] += 1
    world.save(inputs=world.inputs)
    with pytest.raises(MisalignedRows, match=r"1 of the 48 rows .* other content .*\(row-00000017\)"):
        served(loader(world))


def test_rows_that_were_recognised_are_not_hashed_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = loader(world)
    served(found)
    monkeypatch.delattr("softcask.pipeline.student.loader.content_hashes")
    assert len(served(found, epoch=1)) == 200


def test_labels_that_differ_from_the_stores_are_refused(world: Any) -> None:
    labels = world.labels.copy()
    labels[5] = (labels[5] + 1) % 5
    labels[6] = -1
    world.save(labels=labels)
    source = world.source(labels=str(world.folder / "labels.npy"))
    message = rf"1 rows have another label here .*row-00000005: {labels[5]} here, {world.labels[5]} stored"
    with pytest.raises(MisalignedRows, match=message):
        loader(world, source)


def test_the_students_own_labels_fill_in_for_a_store_without(make_world: Callable[..., Any]) -> None:
    world = make_world(labelled=False)
    labels = np.where(np.arange(200) < 50, world.labels, -1)
    world.save(labels=labels)
    found = loader(world, world.source(labels=str(world.folder / "labels.npy")))
    np.testing.assert_array_equal(found.rows.labels_N, labels)


def test_a_label_beyond_the_classes_is_refused(make_world: Callable[..., Any]) -> None:
    world = make_world(labelled=False)
    world.save(labels=np.where(np.arange(200) == 9, 5, world.labels))
    with pytest.raises(TransferSetError, match=r"row-00000009: 5\); expected 0 to 4"):
        loader(world, world.source(labels=str(world.folder / "labels.npy")))


def test_labels_alone_are_not_learnt_from_where_there_are_none(make_world: Callable[..., Any]) -> None:
    world = make_world(labelled=False)
    with pytest.raises(TransferSetError, match="no row has a label"):
        loader(world, needs="labels")


def test_a_row_quarantined_on_both_sides_is_left_out(make_world: Callable[..., Any]) -> None:
    found = loader(make_world(unreadable=33))
    assert sorted(served(found)) == [position for position in range(200) if position != 33]


def test_a_row_that_only_here_cannot_be_read_is_named(world: Any) -> None:
    world.inputs[33, 3] = np.inf
    world.save(inputs=world.inputs)
    with pytest.raises(TransferSetError, match=r"cannot be read here.*row-00000033"):
        served(loader(world))


def test_repeated_ids_are_refused(world: Any) -> None:
    class Twice:
        def __init__(self, rows: TransferSet) -> None:
            self.rows = rows

        def __getattr__(self, name: str) -> Any:
            return getattr(self.rows, name)

        def __len__(self) -> int:
            return len(self.rows)

        def sample_ids(self, start: int, stop: int) -> list[str]:
            return ["row-00000000"] * (stop - start)

    with pytest.raises(TransferSetError, match=r"1 sample ids .* repeat .*row-00000000"):
        loader(world, Twice(world.source()))  # type: ignore[arg-type]


def test_a_partial_store_serves_the_labelled_rows_as_an_intersection(make_world: Callable[..., Any]) -> None:
    world = make_world(units=[0, 2])
    expected = [*range(64), *range(128, 192)]
    assert sorted(served(loader(world, coverage="intersection"))) == expected
    with pytest.raises(IncompleteStore):
        served(loader(world))


def test_a_temperature_without_a_claim_is_refused_before_the_first_batch(world: Any) -> None:
    with pytest.raises(StoreError, match="good for"):
        loader(world, temperature=50)


def test_leaving_an_epoch_early_stops_reading(world: Any) -> None:
    reads: list[int] = []

    class Counted:
        def __init__(self, rows: TransferSet) -> None:
            self.rows = rows

        def __getattr__(self, name: str) -> Any:
            return getattr(self.rows, name)

        def __len__(self) -> int:
            return len(self.rows)

        def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
            reads.append(len(positions_B))
            return self.rows.read(positions_B)

    batches = loader(world, Counted(world.source()), batch_size=2).epoch(0)  # type: ignore[arg-type]
    list(islice(batches, 3))
    batches.close()  # type: ignore[attr-defined]
    assert sum(reads) < 40


ROW_BYTES = 5 * 4
TWO_UNITS = 2 * 64 * ROW_BYTES
"""So many bytes of targets hold two of the four units, and not all 200 rows."""


@pytest.mark.parametrize("needs", ["probabilities", "logits"])
def test_targets_that_do_not_fit_are_fetched_a_unit_at_a_time_and_each_once_an_epoch(
    world: Any, monkeypatch: pytest.MonkeyPatch, needs: str
) -> None:
    fetched: list[tuple[str, int]] = []

    def counted(read: Callable[..., Any]) -> Callable[..., Any]:
        def count(store: Store, teacher: str, rows_B: NDArray[np.int64], *rest: float) -> Any:
            (unit,) = np.unique(store.rows.positions[rows_B] // 64)
            fetched.append((teacher, int(unit)))
            return read(store, teacher, rows_B, *rest)

        return count

    for name in ("logits", "logits_at"):
        monkeypatch.setattr(Store, name, counted(getattr(Store, name)))
    targets = SoftTargets(open_store(world.store, cache_bytes=0))
    found = SoftTargetLoader(
        world.source(), targets, needs=needs, batch_size=10, cache_bytes=TWO_UNITS, temperature=2
    )
    mean = (world.logits["a"].astype(np.float64) + world.logits["b"]) / 2
    expected = mean_softmax(world, 2) if needs == "probabilities" else mean
    for epoch in range(2):
        fetched.clear()
        for batch in found.epoch(epoch):
            assert batch.targets_BC is not None and batch.targets_BC.dtype == np.float32
            np.testing.assert_allclose(batch.targets_BC, expected[batch.positions_B], atol=2e-2)
        assert sorted(fetched) == [(name, index) for name in "ab" for index in range(4)]


def test_rows_whose_targets_do_not_fit_are_mixed_within_pools_that_do(world: Any) -> None:
    order = served(loader(world, cache_bytes=TWO_UNITS, batch_size=10))
    assert sorted(order) == list(range(200))
    units = (order // 64).tolist()
    first = set(units[:64])
    assert len(first) == 2, "the first pool"
    pool = [unit for unit in units if unit in first]
    assert units[: len(pool)] == pool, "a pool ends before the next begins"
    # Mixed at random, two units of 64 rows (or one of 8) take turns often; one after another, once.
    assert sum(a != b for a, b in pairwise(pool)) > 10


def test_seed_and_epoch_alone_decide_the_order_of_pools(world: Any) -> None:
    def order(seed: int, *epochs: int) -> NDArray[np.int64]:
        found = loader(world, seed=seed, cache_bytes=TWO_UNITS)
        return [served(found, epoch) for epoch in epochs][-1]

    np.testing.assert_array_equal(order(3, 0, 1, 2), order(3, 2))
    assert (order(3, 2) != order(3, 1)).any()
    assert (order(3, 2) != order(4, 2)).any()
    pools = {frozenset((order(3, epoch)[:64] // 64).tolist()) for epoch in range(12)}
    assert len(pools) > 1, "other units are mixed in other epochs"


def test_rows_whose_targets_fit_are_mixed_over_the_whole_set(world: Any) -> None:
    fitting = served(loader(world, seed=3, cache_bytes=200 * ROW_BYTES), epoch=2)
    whole = np.random.default_rng(np.random.SeedSequence((3, 2))).permutation(200)
    np.testing.assert_array_equal(fitting, whole)
    without = served(loader(world, seed=3, cache_bytes=0, needs="labels"), epoch=2)
    np.testing.assert_array_equal(without, whole)
