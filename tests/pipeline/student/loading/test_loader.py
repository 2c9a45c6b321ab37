"""Batches: the right targets beside the right inputs, in an order that seed and epoch decide."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from softcask.pipeline.student import Selection, StudentBatch, StudentLoader
from softcask.pipeline.student import loader as student_loader
from softcask.pipeline.targets.compressed import CompressedTargets
from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.storage_schemas.errors import (
    CheckpointError,
    ConfigError,
    IncompleteStore,
    MisalignedRows,
    StoreError,
    StudentError,
    TransferSetError,
)


def loader(world: Any, source: TransferSet | None = None, **options: Any) -> StudentLoader:
    return student_loader(world.store, inputs=source or world.source(), **{"batch_size": 48, **options})


def epoch_of(found: StudentLoader, number: int) -> Iterator[StudentBatch]:
    found.set_epoch(number)
    return iter(found)


def served(found: StudentLoader, epoch: int = 0) -> NDArray[np.int64]:
    return np.concatenate([batch.positions_B.numpy() for batch in epoch_of(found, epoch)])


def mean_softmax(world: Any, temperature: float) -> NDArray[np.float64]:
    def softmax(z: NDArray[np.float32]) -> NDArray[np.float64]:
        powers = np.exp(z.astype(np.float64) / temperature)
        return np.asarray(powers / powers.sum(1, keepdims=True))

    return (softmax(world.logits["a"]) + softmax(world.logits["b"])) / 2


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_each_row_comes_once_an_epoch_with_its_own_targets_and_label(
    world: Any, temperature: float, keep_bytes: int
) -> None:
    found = loader(world, temperature=temperature, keep_bytes=keep_bytes)
    expected = mean_softmax(world, temperature)
    batches = list(epoch_of(found, 0))
    assert [len(batch.labels_B) for batch in batches] == [48, 48, 48, 48, 8]
    assert len(found) == 5
    assert sorted(served(found)) == list(range(200))
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs, world.inputs[batch.positions_B])
        np.testing.assert_array_equal(batch.labels_B, world.labels[batch.positions_B])
        assert batch.targets is not None
        np.testing.assert_allclose(batch.targets, expected[batch.positions_B], atol=3e-3)  # float16 is kept


def test_logits_or_nothing_come_where_that_is_what_the_loss_needs(world: Any) -> None:
    logits = next(iter(loader(world, needs="logits")))
    mean = (world.logits["a"] + world.logits["b"]) / 2
    assert logits.targets is not None
    np.testing.assert_allclose(logits.targets, mean[logits.positions_B], atol=2e-2)
    assert next(iter(loader(world, needs="labels"))).targets is None


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
    batch = next(iter(loader(world, world.source(ids=str(world.folder / "ids.npy")), temperature=1)))
    assert batch.targets is not None
    np.testing.assert_allclose(batch.targets, mean_softmax(world, 1)[order[batch.positions_B]], atol=3e-3)


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
    with pytest.raises(
        MisalignedRows, match=r"1 of the \d+ rows of a batch .* other content .*\(row-00000017\)"
    ):
        served(loader(world))


def test_rows_that_were_recognised_are_not_hashed_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = loader(world)
    served(found)
    monkeypatch.delattr("softcask.pipeline.student.loading.inputs.content_hashes")
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
    np.testing.assert_array_equal(found.parts[0].rows.labels_N, labels)


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

    batches = iter(loader(world, Counted(world.source()), batch_size=1))  # type: ignore[arg-type]
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert sum(reads) < 40, "blocks of one batch, two, four and eight, not yet more"


STORED_BYTES = 2 * (5 * 2 + 4)
TWO_UNITS = {"keep_bytes": 0, "window_bytes": 2 * 64 * STORED_BYTES}
"""So many bytes of what is stored hold two of the four units."""


@pytest.mark.parametrize("needs", ["probabilities", "logits"])
def test_targets_that_are_not_kept_are_those_of_their_rows_in_windows_too(world: Any, needs: str) -> None:
    mean = (world.logits["a"].astype(np.float64) + world.logits["b"]) / 2
    expected = mean_softmax(world, 2) if needs == "probabilities" else mean
    for batch in loader(world, needs=needs, batch_size=10, temperature=2, **TWO_UNITS):
        assert batch.targets is not None and batch.targets.dtype == torch.float32
        np.testing.assert_allclose(batch.targets, expected[batch.positions_B], atol=2e-2)


def test_rows_whose_targets_do_not_fit_are_mixed_within_pools_that_do(world: Any) -> None:
    order = served(loader(world, batch_size=10, **TWO_UNITS))
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
        found = loader(world, seed=seed, **TWO_UNITS)
        return [served(found, epoch) for epoch in epochs][-1]

    np.testing.assert_array_equal(order(3, 0, 1, 2), order(3, 2))
    assert (order(3, 2) != order(3, 1)).any()
    assert (order(3, 2) != order(4, 2)).any()
    pools = {frozenset((order(3, epoch)[:64] // 64).tolist()) for epoch in range(12)}
    assert len(pools) > 1, "other units are mixed in other epochs"


def test_rows_whose_targets_fit_are_mixed_over_the_whole_set(world: Any) -> None:
    fitting = served(loader(world, seed=3, keep_bytes=200 * 5 * 4, window_bytes=0), epoch=2)
    whole = np.random.default_rng(np.random.SeedSequence((3, 2))).permutation(200)
    np.testing.assert_array_equal(fitting, whole)
    window = served(loader(world, seed=3, keep_bytes=0, window_bytes=200 * STORED_BYTES), epoch=2)
    np.testing.assert_array_equal(window, whole)
    without = served(loader(world, seed=3, keep_bytes=0, window_bytes=0, needs="labels"), epoch=2)
    np.testing.assert_array_equal(without, whole)


def places(found: Iterable[StudentBatch]) -> list[list[int]]:
    return [batch.positions_B.tolist() for batch in found]


def test_an_iteration_goes_on_with_the_next_epoch_by_itself(world: Any) -> None:
    found = loader(world)
    first, second = places(found), places(found)
    assert first != second
    assert second == places(epoch_of(loader(world), 1))
    assert found.epoch == 2


def test_a_loop_that_counts_batches_goes_on_with_the_next_epoch_too(world: Any) -> None:
    # As Lightning's does: it never asks for the batch behind the last.
    counting, asking = loader(world), loader(world)
    counted = [places(islice(counting, len(counting))) for _ in range(2)]
    assert counted == [places(asking) for _ in range(2)]
    assert (counting.epoch, counting.state_dict()) == (asking.epoch, asking.state_dict())


def test_a_look_at_one_batch_takes_none_away(world: Any) -> None:
    found = loader(world)
    expected = places(loader(world))
    assert next(iter(found)).positions_B.tolist() == expected[0]
    assert places(found) == expected


@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("options", [{}, TWO_UNITS])
def test_a_state_by_way_of_json_goes_on_where_it_was_taken(
    world: Any, consumed: int, options: dict[str, int]
) -> None:
    straight = loader(world, epochs=3, **options)
    expected = places(straight)
    found = loader(world, epochs=3, **options)
    begun = list(islice(iter(found), consumed))
    state = json.loads(json.dumps(found.state_dict()))
    assert (state["epoch"], state["rows"]) == divmod(sum(map(len, begun)), 200)
    resumed = loader(world, epochs=3, **options)
    resumed.load_state_dict(state)
    assert places(begun) + places(resumed) == expected


def test_what_is_read_ahead_is_not_counted(world: Any) -> None:
    found = loader(world, batch_size=2)
    batches = iter(found)
    next(batches)
    next(batches)
    assert found.state_dict()["rows"] == 4


@pytest.mark.parametrize("worlds", [(1, 4), (3, 2), (4, 1), (2, 7)])
def test_another_number_of_processes_goes_on_with_the_rows_that_are_left(
    world: Any, worlds: tuple[int, int]
) -> None:
    before, after = worlds
    seen, state = [], {}
    for rank in range(before):
        found = loader(world, batch_size=9, rank=rank, world_size=before)
        seen += places(islice(iter(found), 4))
        state = found.state_dict()
    steps = set()
    for rank in range(after):
        found = loader(world, batch_size=11, rank=rank, world_size=after)
        found.load_state_dict(state)
        rest = places(found)
        steps.add(len(rest))
        seen += rest
    assert sorted(itertools.chain(*seen)) == list(range(200))
    assert len(steps) == 1, "a process that has one step more than others would wait for ever"


def test_a_state_of_other_rows_seed_or_order_is_refused_field_by_field(world: Any) -> None:
    state = loader(world).state_dict()
    with pytest.raises(CheckpointError, match="seed: found 1, expected 0"):
        loader(world, seed=1).load_state_dict(state)
    with pytest.raises(CheckpointError, match="order.units_a_window: found 2, expected null"):
        loader(world, **TWO_UNITS).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"data") as refused:
        loader(world, select=Selection(classes=[1, 2])).load_state_dict(state)
    assert "seed" not in str(refused.value)
    with pytest.raises(CheckpointError, match="is no state of a loader"):
        loader(world).load_state_dict({"epoch": 3})
    with pytest.raises(CheckpointError, match="row 201 of 200"):
        loader(world).load_state_dict({**state, "rows": 201})


def test_an_endless_loader_crosses_epochs_and_has_no_length(world: Any) -> None:
    found = loader(world, epochs=None)
    one, two = places(loader(world)), places(epoch_of(loader(world), 1))
    assert places(islice(iter(found), 8)) == one + two[:3]
    with pytest.raises(TypeError):
        len(found)


def test_an_iteration_of_several_epochs_ends_where_it_would_have_when_it_is_resumed(world: Any) -> None:
    found = loader(world, epochs=3)
    assert len(found) == 15
    found.set_epoch(1)
    assert len(places(found)) == 10


def test_two_iterations_of_one_loader_are_refused(world: Any) -> None:
    found = loader(world)
    first = iter(found)
    next(first)
    next(iter(found))
    with pytest.raises(StudentError, match="another iteration"):
        next(first)


def test_targets_alone_come_without_inputs(world: Any) -> None:
    found = student_loader(world.store, temperature=4, batch_size=64)
    expected = mean_softmax(world, 4)
    seen = []
    for batch in found:
        assert batch.inputs is None
        np.testing.assert_allclose(batch.targets, expected[batch.rows_B], atol=3e-3)
        seen += batch.rows_B.tolist()
    assert sorted(seen) == list(range(200))


def test_a_section_of_a_run_file_is_as_good_as_an_open_transfer_set(world: Any) -> None:
    section = {"kind": "arrays", "inputs": str(world.folder / "inputs.npy"), "id_prefix": "row"}
    assert places(student_loader(world.store, inputs=section, batch_size=48)) == places(loader(world))
    with pytest.raises(ConfigError, match="no valid section"):
        student_loader(world.store, inputs={**section, "inptus": 3})


def test_a_temperature_by_epoch_makes_the_targets_anew(world: Any) -> None:
    found = loader(world, temperature=lambda epoch: 1.0 + epoch, epochs=2)
    for batch in found:
        assert batch.temperature in (1.0, 2.0)
        expected = mean_softmax(world, batch.temperature)
        np.testing.assert_allclose(batch.targets, expected[batch.positions_B], atol=3e-3)


def test_weights_of_rows_come_with_them(world: Any) -> None:
    given = {"row-00000007": 0.5, "row-00000009": 3.0}
    found = {}
    for batch in loader(world, row_weights=given):
        assert batch.weights_B is not None
        found |= dict(zip(batch.positions_B.tolist(), batch.weights_B.tolist(), strict=True))
    assert found == {row: {7: 0.5, 9: 3.0}.get(row, 1.0) for row in range(200)}
    with pytest.raises(ConfigError, match="'nobody', which is no row"):
        loader(world, row_weights={"nobody": 1.0})
    with pytest.raises(ConfigError, match="not below 0"):
        loader(world, row_weights=[-1.0] * 200)


@pytest.mark.parametrize("number", ["batch_size", "epochs"])
def test_numbers_that_make_no_sense_are_refused(world: Any, number: str) -> None:
    with pytest.raises(ConfigError, match=f"{number} is 0; expected a whole number from 1"):
        loader(world, **{number: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"needs": "probs"}, "needs is 'probs'; expected one of probabilities, logits"),
        ({"temperature": "4"}, "temperature is '4'; expected a number"),
        ({"select": {"clases": [1]}}, "(?s)select is not valid.*clases"),
    ],
)
def test_options_that_make_no_sense_are_refused(world: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(world, **options)


def test_one_teacher_is_named_without_a_list_and_rows_by_a_mapping(world: Any) -> None:
    found = loader(world, teachers="a", select={"classes": [1]})
    assert found.parts[0].targets.teachers == ("a",)
    assert sorted(served(found)) == np.flatnonzero(world.labels == 1).tolist()


def test_what_is_stored_comes_as_it_is(world: Any) -> None:
    for options in ({}, {"keep_bytes": 0}):
        for batch in loader(world, needs="compressed", teachers="a", **options):
            assert isinstance(batch.targets, CompressedTargets)
            columns = batch.targets.columns
            found = columns["logits"].float() + columns["row_max"][:, None]
            np.testing.assert_allclose(found, world.logits["a"][batch.positions_B], atol=2e-2)
    with pytest.raises(StoreError, match="compressed targets are one teacher's"):
        loader(world, needs="compressed")


def test_the_rank_is_what_torchrun_says(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = loader(world)
    assert (found.rank, found.world_size) == (2, 3)
    with pytest.raises(StudentError, match="give both, or neither"):
        loader(world, rank=0)
    with pytest.raises(StudentError, match="rank 3 of 3"):
        loader(world, rank=3, world_size=3)
    with pytest.raises(StudentError, match="200 rows for 201 processes"):
        loader(world, rank=0, world_size=201)


def test_a_batch_moves_as_a_whole(world: Any) -> None:
    batch = next(iter(loader(world))).to("meta")
    assert {batch.inputs.device.type, batch.targets.device.type, batch.labels_B.device.type} == {"meta"}
