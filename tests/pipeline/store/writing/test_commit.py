from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray
from tests.stores import Killed, MadeStore, all_objects, flip, mortal, overtaken, teacher_manifest

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.layout import array_layouts
from softcask.pipeline.store.receipts import committed_units, read_commit
from softcask.pipeline.store.writing.commit import commit_unit
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.manifest import ObjectRecord

UNIT = "s0000-v0000-00000000"
GROUP = keys.logits_group("alpha", "s0000", 0)
LOGITS, ROW_MAX = f"{GROUP}/logits/c/0/0", f"{GROUP}/row_max/c/0"
STATS = keys.stats_part("alpha", "s0000", 0, 0)
RECEIPT = keys.commit("alpha", UNIT)
OBJECTS = (LOGITS, ROW_MAX, STATS, RECEIPT)


def begun(folder: Path, name: str = "store") -> MadeStore:
    """Two units of 8 and 3 rows, rows 2 and 9 quarantined; nothing committed."""
    made = MadeStore.at(str(folder / name))
    made.add_segment(11, quarantined=[2, 9])
    made.add_teacher("alpha")
    return made


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return begun(tmp_path)


def shard_of(made: MadeStore, logits_BC: NDArray[np.float32], column: str) -> bytes:
    """A shard of unit 0 that holds other logits."""
    layout = array_layouts(made.teachers["alpha"], made.segments["s0000"][0])[column]
    row_max_B = logits_BC.max(axis=1)
    values = {"logits": logits_BC - row_max_B[:, None], "row_max": row_max_B}[column]
    return layout.encode_shard(values.astype(layout.column.dtype))


def unit_logits(made: MadeStore) -> NDArray[np.float32]:
    logits_BC = made.logits["alpha", "s0000"][:8].copy()
    logits_BC[2] = np.nan
    return logits_BC


def shown(made: MadeStore) -> NDArray[np.float32]:
    """Unit 0 as zarr-python reads it."""
    group = zarr.open_group(made.objects.path(GROUP), mode="r")
    logits_BC = np.asarray(group["logits"][:8], dtype=np.float32)  # type: ignore[index]
    return logits_BC + np.asarray(group["row_max"][:8])[:, None]  # type: ignore[index]


def check_receipt_describes_what_stands(made: MadeStore) -> None:
    commit = read_commit(made.objects, made.teachers["alpha"], UNIT)
    assert commit is not None
    assert [record.key for record in commit.objects] == [LOGITS, ROW_MAX, STATS]
    assert verify(made.objects.uri).problems == ()
    stats = pq.read_table(made.objects.path(STATS)).to_pydict()
    readable_BC = shown(made)[np.array(stats["row"])]
    assert [top[0] for top in stats["top_classes"]] == readable_BC.argmax(axis=1).tolist()
    assert stats["logsumexp"] == pytest.approx(np.log(np.exp(readable_BC).sum(axis=1)), rel=1e-5)
    assert commit.row_max_range == (readable_BC.max(axis=1).min(), readable_BC.max(axis=1).max())


def test_a_unit_is_its_shards_its_statistics_and_its_receipt(made: MadeStore) -> None:
    before = all_objects(made.objects)
    receipt = made.commit("alpha", 0)
    assert sorted(all_objects(made.objects).keys() - before.keys()) == sorted(OBJECTS)
    assert committed_units(made.objects, "alpha") == {UNIT}
    assert read_commit(made.objects, made.teachers["alpha"], UNIT) == receipt
    check_receipt_describes_what_stands(made)


def test_a_receipt_counts_rows_labels_and_hits(made: MadeStore) -> None:
    table = made.segments["s0000"][1].to_pylist()
    for index, (start, stop) in enumerate([(0, 8), (8, 11)]):
        readable = [row for row in range(start, stop) if table[row]["quarantine"] is None]
        labelled = [row for row in readable if table[row]["label"] is not None]
        top = made.logits["alpha", "s0000"].argmax(axis=1)
        receipt = made.commit("alpha", index)
        assert (receipt.start, receipt.stop, receipt.rows) == (start, stop, len(readable))
        assert receipt.labelled == len(labelled)
        assert receipt.correct == sum(top[row] == table[row]["label"] for row in labelled)


def test_quarantined_rows_keep_their_place_as_nan_and_have_no_statistics(made: MadeStore) -> None:
    made.commit("alpha", 0)
    found_BC = shown(made)
    assert np.isnan(found_BC[2]).all()
    readable = [0, 1, 3, 4, 5, 6, 7]
    expected_BC = made.logits["alpha", "s0000"][readable]
    assert np.abs(found_BC[readable] - expected_BC).max() < 2**-11 * 30
    assert pq.read_table(made.objects.path(STATS))["row"].to_pylist() == readable


def test_a_unit_of_quarantined_rows_only_is_committed_too(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(8, quarantined=range(8))
    made.add_teacher("alpha")
    receipt = made.commit("alpha", 0)
    assert (receipt.rows, receipt.labelled, receipt.correct, receipt.row_max_range) == (0, 0, 0, None)
    assert np.isnan(shown(made)).all()
    before = all_objects(made.objects)
    assert made.commit("alpha", 0) == receipt
    assert all_objects(made.objects) == before
    assert verify(made.objects.uri).problems == ()


def test_to_commit_again_changes_nothing(made: MadeStore) -> None:
    receipt = made.commit("alpha", 0)
    before = all_objects(made.objects)
    assert made.commit("alpha", 0) == receipt
    assert all_objects(made.objects) == before


def test_a_second_pass_with_other_last_bits_finds_the_first_ones_receipt(made: MadeStore) -> None:
    receipt = made.commit("alpha", 0)
    before = all_objects(made.objects)
    made.logits["alpha", "s0000"] *= 1 + 1e-3
    assert made.commit("alpha", 0) == receipt
    assert all_objects(made.objects) == before


@pytest.mark.parametrize("lost", [*OBJECTS[3:], *OBJECTS[2:3]])
def test_a_writer_that_died_before_its_receipt_is_taken_over(made: MadeStore, lost: str) -> None:
    made.commit("alpha", 0)
    before = all_objects(made.objects)
    for key in {lost, RECEIPT}:
        Path(made.objects.path(key)).unlink()
    made.commit("alpha", 0)
    assert all_objects(made.objects) == before


@pytest.mark.parametrize("taken", [(LOGITS,), (ROW_MAX,), (LOGITS, ROW_MAX)])
def test_whole_shards_of_another_pass_are_adopted_and_the_statistics_follow_them(
    made: MadeStore, taken: tuple[str, ...]
) -> None:
    # Off by a thousandth of their spread, and so in fp16 by a step here and there.
    other_BC = unit_logits(made) + np.random.default_rng(7).uniform(-4e-3, 4e-3, (8, 3)).astype(np.float32)
    left = {key: shard_of(made, other_BC, "logits" if key == LOGITS else "row_max") for key in taken}
    for key, data in left.items():
        made.objects.publish(key, data)
    made.commit("alpha", 0)
    standing = all_objects(made.objects)
    assert {key: standing[key] for key in left} == left
    check_receipt_describes_what_stands(made)


@pytest.mark.parametrize("column", ["logits", "row_max"])
def test_what_a_killed_writer_of_another_teacher_left_is_not_adopted(made: MadeStore, column: str) -> None:
    """The name was pinned, its first unit's shard published, the writer killed, the name pinned anew."""
    key = LOGITS if column == "logits" else ROW_MAX
    made.objects.publish(key, shard_of(made, np.roll(unit_logits(made), 1, axis=1) * 1.5, column))
    made.commit("alpha", 0)
    check_whole(made)


@pytest.mark.parametrize("column", ["logits", "row_max"])
@pytest.mark.parametrize("off", [2e-2, 4e-2])
def test_shards_of_retrained_weights_are_not_adopted_however_close_they_are(
    made: MadeStore, column: str, off: float
) -> None:
    """Noise of so many standard deviations: one more step of SGD is that far away."""
    logits_BC = unit_logits(made)
    noise_BC = np.random.default_rng(3).normal(0, off * np.nanstd(logits_BC), logits_BC.shape)
    key = LOGITS if column == "logits" else ROW_MAX
    made.objects.publish(key, shard_of(made, (logits_BC + noise_BC).astype(np.float32), column))
    made.commit("alpha", 0)
    check_whole(made)


def test_one_value_that_is_off_is_enough_for_a_shard_not_to_be_adopted(made: MadeStore) -> None:
    logits_BC = unit_logits(made)
    logits_BC[3, logits_BC[3].argmin()] -= 0.03 * np.nanstd(logits_BC)
    made.objects.publish(LOGITS, shard_of(made, logits_BC, "logits"))
    made.commit("alpha", 0)
    check_whole(made)


@pytest.mark.parametrize(("dtype", "adopted"), [(None, False), ("float32", False), ("bfloat16", True)])
def test_what_may_be_adopted_follows_from_what_the_teacher_computes_in(
    made: MadeStore, dtype: str | None, adopted: bool
) -> None:
    alpha = made.teachers["alpha"]
    fingerprint = alpha.fingerprint | ({"dtype": dtype} if dtype else {})
    made.teachers["alpha"] = alpha.model_copy(update={"fingerprint": fingerprint})
    made.objects.replace(keys.teacher_manifest("alpha"), made.teachers["alpha"].to_bytes())
    logits_BC = unit_logits(made)
    left = shard_of(made, logits_BC + np.float32(0.03 * np.nanstd(logits_BC)), "row_max")
    made.objects.publish(ROW_MAX, left)
    made.commit("alpha", 0)
    assert (made.objects.read(ROW_MAX) == left) == adopted


def test_other_last_bits_are_adopted_though_fp16_rounds_them_a_whole_step_apart(tmp_path: Path) -> None:
    """Far below the maximum a step of fp16 is more than kernels may differ by."""
    made = MadeStore.at(str(tmp_path / "store"), class_names=[f"class {number}" for number in range(100)])
    made.add_segment(8)
    made.add_teacher("alpha")
    logits_BC = made.logits["alpha", "s0000"]
    logits_BC[:] = 0
    logits_BC[0, 1] = -1025.5  # half-way between two numbers of fp16
    other_BC = logits_BC.copy()
    other_BC[0, 1] = np.nextafter(other_BC[0, 1], np.float32(0))
    left = shard_of(made, other_BC, "logits")
    made.objects.publish(LOGITS, left)
    assert left != shard_of(made, logits_BC, "logits")
    assert 5e-3 * logits_BC.std() < 1
    made.commit("alpha", 0)
    assert made.objects.read(LOGITS) == left


def test_a_committed_unit_is_left_as_it_is_by_a_pass_that_differs_more(made: MadeStore) -> None:
    receipt = made.commit("alpha", 0)
    before = all_objects(made.objects)
    made.logits["alpha", "s0000"] *= 1.02
    assert made.commit("alpha", 0) == receipt
    assert all_objects(made.objects) == before


def check_whole(made: MadeStore) -> None:
    """The store equals one that was never disturbed, object by object."""
    undisturbed = begun(Path(made.objects.uri).parent, "undisturbed")
    undisturbed.commit("alpha", 0)
    assert all_objects(made.objects) == all_objects(undisturbed.objects)


def with_nan(made: MadeStore) -> bytes:
    logits_BC = unit_logits(made)
    logits_BC[4, 1] = np.nan
    return shard_of(made, logits_BC, "logits")


def without_quarantine(made: MadeStore) -> bytes:
    return shard_of(made, made.logits["alpha", "s0000"][:8], "logits")


def infinite(made: MadeStore) -> bytes:
    layout = array_layouts(made.teachers["alpha"], made.segments["s0000"][0])["logits"]
    return layout.encode_shard(np.full((8, 3), -np.inf, dtype=np.float16))


DAMAGE: dict[str, Callable[[MadeStore], bytes]] = {
    "flipped": lambda made: flip(shard_of(made, unit_logits(made), "logits"), 5),
    "truncated": lambda made: shard_of(made, unit_logits(made), "logits")[:-1],
    "empty": lambda _: b"",
    "NaN in a readable row": with_nan,
    "a value in a quarantined row": without_quarantine,
    "infinite": infinite,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_shard_that_a_writer_left_damaged_is_replaced(made: MadeStore, kind: str) -> None:
    made.objects.publish(LOGITS, DAMAGE[kind](made))
    made.commit("alpha", 0)
    check_whole(made)


@pytest.mark.parametrize("left", [b"", b"PAR1 and no more"])
def test_statistics_that_a_writer_left_damaged_are_replaced(made: MadeStore, left: bytes) -> None:
    made.objects.publish(STATS, left)
    made.commit("alpha", 0)
    check_whole(made)


def test_statistics_of_other_logits_are_replaced(made: MadeStore) -> None:
    other = begun(Path(made.objects.uri).parent, "other")
    other.logits["alpha", "s0000"] *= 2
    other.commit("alpha", 0)
    made.objects.publish(STATS, other.objects.read(STATS))
    made.commit("alpha", 0)
    check_whole(made)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_steps_a_commit_ends_as_if_it_never_was(
    tmp_path: Path, after: bool, damaged: bool
) -> None:
    """With and without a damaged shard in the way; the store then equals an undisturbed one."""
    steps = 0
    for step in range(1, 20):
        made = begun(tmp_path, f"store-{step}")
        if damaged:
            made.objects.publish(LOGITS, b"damaged")
        dying = mortal(made.objects, step, after=after)
        try:
            made.commit("alpha", 0, objects=dying)
        except Killed:
            steps += 1
            committed = committed_units(made.objects, "alpha") == {UNIT}
            assert committed == (after and dying.writes[-1] == RECEIPT)
            assert committed == (
                verify(made.objects.uri).orphans == 0 and RECEIPT in all_objects(made.objects)
            )
            made.commit("alpha", 0)
        check_whole(made)
    assert steps == (5 if damaged else 4)  # two shards, statistics, receipt; one more to replace the damage


def test_what_is_not_committed_is_not_read_as_committed(made: MadeStore) -> None:
    with pytest.raises(Killed):
        made.commit("alpha", 0, objects=mortal(made.objects, 3, after=True))
    assert read_commit(made.objects, made.teachers["alpha"], UNIT) is None


@pytest.mark.parametrize("left", [None, b"damaged"])
def test_threads_that_commit_one_unit_at_once_end_with_a_receipt_of_what_stands(
    tmp_path: Path, left: bytes | None
) -> None:
    for number in range(4):
        made = begun(tmp_path, f"store-{number}")
        if left is not None:
            made.objects.publish(LOGITS, left)
        commit_at_once(made, threads=4)
        check_receipt_describes_what_stands(made)


def commit_at_once(made: MadeStore, threads: int) -> None:
    """Unit 0, by each thread with last bits of its own."""
    rows, logits_BC = made.rows_of(0), made.logits["alpha", "s0000"][:8]
    start = threading.Barrier(threads)

    def race(seed: int) -> None:
        noise_BC = np.random.default_rng(seed).normal(0, 1e-3, logits_BC.shape)
        mine_BC = (logits_BC + noise_BC).astype(np.float32)
        start.wait()
        commit_unit(made.objects, made.teachers["alpha"], rows, mine_BC[rows.readable])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(race, range(threads)))


@pytest.mark.parametrize("key", OBJECTS)
def test_of_two_writers_that_mend_one_damaged_shard_the_receipt_fits_the_bytes_that_stand(
    made: MadeStore, key: str
) -> None:
    """The other writer does its whole commit just before this one's write of `key`."""
    made.objects.publish(LOGITS, b"damaged")
    rows = made.rows_of(0)
    other_RC = made.logits["alpha", "s0000"][:8][rows.readable] * np.float32(1.001)
    objects = overtaken(
        made.objects, key, lambda: commit_unit(made.objects, made.teachers["alpha"], rows, other_RC)
    )
    made.commit("alpha", 0, objects=objects)
    assert objects.overtake == []
    check_receipt_describes_what_stands(made)


def test_when_the_mending_write_itself_is_overtaken_the_receipt_is_put_right(made: MadeStore) -> None:
    made.objects.publish(LOGITS, b"damaged")
    rows = made.rows_of(0)
    other_RC = made.logits["alpha", "s0000"][:8][rows.readable] * np.float32(1.001)

    def other() -> None:
        commit_unit(made.objects, made.teachers["alpha"], rows, other_RC)

    # The first write of LOGITS finds the name taken; the other writer comes before the second, the mending.
    objects = overtaken(made.objects, LOGITS, lambda: None, other)
    made.commit("alpha", 0, objects=objects)
    assert objects.overtake == []
    check_receipt_describes_what_stands(made)


def test_a_name_that_another_run_has_pinned_anew_takes_no_commit_of_the_first(made: MadeStore) -> None:
    pinned_anew = teacher_manifest("alpha", seed=1)
    made.objects.replace(keys.teacher_manifest("alpha"), pinned_anew.to_bytes())
    with pytest.raises(ManifestMismatch, match="fingerprint.weights: found"):
        made.commit("alpha", 0)
    assert committed_units(made.objects, "alpha") == set()


def test_a_receipt_written_while_the_name_was_pinned_anew_is_taken_back(made: MadeStore) -> None:
    """The other run saw no unit and pinned the name just before the receipt was written."""
    anew = teacher_manifest("alpha", seed=1)
    objects = overtaken(
        made.objects,
        RECEIPT,
        lambda: made.objects.replace(keys.teacher_manifest("alpha"), anew.to_bytes()),
    )
    with pytest.raises(ManifestMismatch, match="fingerprint.weights: found"):
        made.commit("alpha", 0, objects=objects)
    assert objects.overtake == []
    assert committed_units(made.objects, "alpha") == set()
    made.teachers["alpha"] = anew
    made.logits["alpha", "s0000"] *= 2
    made.commit_all("alpha")
    assert seal(made.objects).teachers["alpha"].units == 2
    assert verify(made.objects.uri).problems == ()


def test_a_receipt_of_the_teacher_that_has_the_name_now_is_not_taken_back(made: MadeStore) -> None:
    """It was pinned anew and its unit committed just before this one's receipt was to be written."""
    anew = teacher_manifest("alpha", seed=1)

    def other() -> None:
        made.objects.replace(keys.teacher_manifest("alpha"), anew.to_bytes())
        commit_unit(made.objects, anew, made.rows_of(0), np.ones((7, 3), dtype=np.float32))

    with pytest.raises(ManifestMismatch):
        made.commit("alpha", 0, objects=overtaken(made.objects, RECEIPT, other))
    assert read_commit(made.objects, anew, UNIT) is not None


def test_a_receipt_of_another_teacher_unit_or_fingerprint_is_refused(made: MadeStore) -> None:
    made.add_teacher("beta")
    for index in (0, 1):
        made.commit("alpha", index)
    alpha, beta = made.teachers["alpha"], made.teachers["beta"]
    made.objects.publish(keys.commit("beta", UNIT), made.objects.read(RECEIPT))
    with pytest.raises(CorruptObject, match=f"receipt of alpha/{UNIT}; it was moved or copied"):
        read_commit(made.objects, beta, UNIT)
    made.objects.replace(RECEIPT, made.objects.read(keys.commit("alpha", "s0000-v0000-00000001")))
    with pytest.raises(CorruptObject, match="moved or copied"):
        read_commit(made.objects, alpha, UNIT)
    with pytest.raises(ManifestMismatch, match="different stores"):
        read_commit(made.objects, teacher_manifest("alpha", seed=1), "s0000-v0000-00000001")


def test_a_flipped_byte_in_a_receipt_is_found(made: MadeStore) -> None:
    made.commit("alpha", 0)
    data = made.objects.read(RECEIPT)
    for place in range(len(data)):
        Path(made.objects.path(RECEIPT)).write_bytes(flip(data, place))
        with pytest.raises(CorruptObject, match=RECEIPT):
            read_commit(made.objects, made.teachers["alpha"], UNIT)


@dataclass(frozen=True, slots=True)
class Forgetful(StoreObjects):
    """A disk that gives back one bit of a shard otherwise than it was written, each time."""

    reads: list[str] = field(default_factory=list)

    def read_recorded(self, record: ObjectRecord) -> bytes:
        if record.key != LOGITS:
            return StoreObjects.read_recorded(self, record)
        self.reads.append(record.key)
        if len(self.reads) > 20:
            raise Killed
        return record.check(flip(self.read(record.key), 3))


def test_a_filesystem_that_gives_back_other_bytes_is_given_up_on(made: MadeStore) -> None:
    made.objects.publish(LOGITS, b"damaged")
    objects = Forgetful(made.objects.uri, made.objects.fs, made.objects.root)
    with pytest.raises(CorruptObject, match=f"{UNIT} of teacher 'alpha': .* in 5 attempts"):
        made.commit("alpha", 0, objects=objects)
    assert committed_units(made.objects, "alpha") == set()


def test_a_store_in_memory_takes_commits_too() -> None:
    made = MadeStore.at("memory://commits")
    made.add_segment(11)
    made.add_teacher("alpha")
    receipt = made.commit("alpha", 0)
    assert made.commit("alpha", 0) == receipt
    assert verify("memory://commits").problems == ()


@pytest.mark.parametrize("key", OBJECTS)
def test_writers_too_far_apart_to_adopt_from_one_another_end_with_a_receipt_of_what_stands(
    made: MadeStore, key: str
) -> None:
    """Both mend, and the other one commits while this one is at it."""
    made.objects.publish(LOGITS, b"damaged")
    rows = made.rows_of(0)
    other_RC = made.logits["alpha", "s0000"][:8][rows.readable] * np.float32(1.5)

    def other() -> None:
        made.objects.replace(LOGITS, b"damaged again")
        commit_unit(made.objects, made.teachers["alpha"], rows, other_RC)

    returned = made.commit("alpha", 0, objects=overtaken(made.objects, key, other))
    assert returned == read_commit(made.objects, made.teachers["alpha"], UNIT)
    check_receipt_describes_what_stands(made)
