"""Classes that are -inf in every row: not stored, of probability 0 when read, and an error anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from tests import toy_models
from tests.stores import flip
from tests.worlds import identities_of, objects_of, run_config, teacher, write_rows

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.derive import combine, reencode
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.repair import repair
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.teachers.checks import check_logits
from softcask.storage_schemas.codecs.fidelity import divergence
from softcask.storage_schemas.errors import ExchangeError, ManifestMismatch, StoreError, TeacherError

CLASSES, ROWS = 12, 70
ABSENT = [0, 3, 10, 11]
PRESENT = [1, 2, 4, 5, 6, 7, 8, 9]
CODECS: dict[str, Any] = {
    "dense16": "dense16",
    "dense8": "dense8",
    "topk": {"name": "topk", "k": 3},
    "topk of all": {"name": "topk", "k": 12},
    "lowrank": {"name": "lowrank", "max_bytes": 40},
    "by budget": {"max_kl": 1e-3},
}


def padded(name: str = "a", *, absent: list[Any] | None = None, **kwargs: Any) -> dict[str, Any]:
    """A `[[teachers]]` section."""
    stated = {} if absent == [] else {"absent_classes": absent or [0, 3, "10-11"]}
    given = {"classes": CLASSES, "absent": ABSENT, **kwargs}
    return teacher(name, factory="toy_models:padded", kwargs=given, preprocessing={}, **stated)


def config_of(folder: Path, *teachers: dict[str, Any], codec: Any = "dense16") -> RunConfig:
    request = {"name": codec} if isinstance(codec, str) else codec
    store = {"uri": str(folder / "cask"), "unit_rows": 32, "codec": {"rows": 64, **request}}
    return run_config(folder, *(teachers or (padded(),)), classes={"count": CLASSES}, store=store)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rows(tmp_path, rows=ROWS, unreadable=(5,))


def cask(folder: Path) -> Store:
    return open_store(str(folder / "cask"))


def teacher_logits(folder: Path, seed: int = 0) -> NDArray[np.float64]:
    """`[69, 12]` of the readable rows, by the bare net."""
    inputs = np.delete(np.load(folder / "inputs.npy"), 5, axis=0)
    with torch.inference_mode():
        logits = toy_models.net(seed, CLASSES)(torch.from_numpy(inputs)).numpy().astype(np.float64)
    logits[:, ABSENT] = -np.inf
    return logits


def softmax(logits_NC: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    powers = np.exp((logits_NC - logits_NC.max(axis=1, keepdims=True)).astype(np.float64) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("codec", CODECS)
def test_absent_classes_have_probability_0_and_all_others_what_the_teacher_gave(
    folder: Path, codec: str
) -> None:
    precompute(config_of(folder, codec=CODECS[codec]))
    targets, rows_B = SoftTargets(cask(folder)), np.arange(ROWS - 1)
    for temperature in (0.5, 1.0, 4.0, 20.0):
        expected = softmax(teacher_logits(folder), temperature)
        found = targets.probabilities(rows_B, temperature)
        assert (found[:, ABSENT] == 0).all() and (found[:, PRESENT] > 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        kl = np.where(expected > 0, expected * np.log(expected / np.where(found > 0, found, 1)), 0).sum(
            axis=1
        )
        # What topk spreads evenly over the five others is what it loses.
        assert kl.mean() < (0.2 if codec == "topk" else 0.02 if codec == "lowrank" else 1e-3)
    assert verify(str(folder / "cask")).problems == ()
    assert precompute(config_of(folder, codec=CODECS[codec])).tasks == 0


def test_nothing_of_them_is_stored_and_raw_logits_are_minus_infinity(folder: Path) -> None:
    precompute(config_of(folder))
    store = cask(folder)
    assert store.teacher("a").absent_classes == tuple(ABSENT)
    assert zarr.open_group(str(folder / "cask/teachers/a/logits/s0000/v0000"))["logits"].shape == (70, 8)
    logits_NC = store.logits("a", np.arange(ROWS - 1))
    assert np.isneginf(logits_NC[:, ABSENT]).all()
    np.testing.assert_allclose(logits_NC[:, PRESENT], teacher_logits(folder)[:, PRESENT], atol=0.05)
    assert store.logits("a", np.arange(0)).shape == (0, CLASSES)


def test_statistics_and_top_1_are_of_the_classes_that_people_know(folder: Path) -> None:
    summary = precompute(config_of(folder))
    expected = np.argsort(-teacher_logits(folder), axis=1, kind="stable")[:, :5]
    stats = cask(folder).stats("a")
    assert np.array_equal(np.array(stats["top_classes"].to_pylist()), expected)
    labels = np.delete(np.load(folder / "labels.npy"), 5)
    assert summary.teachers["a"].correct == int((expected[:, 0] == labels).sum()) > 0
    assert np.isfinite(stats["entropy"].to_numpy()).all()
    frame = cask(folder).to_pandas("a", temperature=2.0)
    assert (frame["3"] == 0).all() and (frame["4"] > 0).all()


def test_a_padded_layer_that_is_not_stated_is_refused_and_what_to_state_is_told(folder: Path) -> None:
    with pytest.raises(TeacherError, match=r'absent_classes = \[0, 3, "10-11"\]') as refused:
        precompute(config_of(folder, padded(absent=[])))
    assert "'inputs-00000000', class 0: -inf" in str(refused.value)
    assert not (folder / "cask" / "teachers").exists()


SPOILED = {
    "minus infinity where none is stated": ({"4": -np.inf}, "'inputs-00000061', class 4: -inf"),
    "no number": ({"4": np.nan}, "1 NaN and 0 infinite"),
    "no number where a class is absent": ({"3": np.nan}, "'inputs-00000061', class 3: nan"),
    "a number where a class is absent": ({"3": 0.5}, r"class 3 is one of absent_classes.*is 0.5 in row"),
    "infinity where a class is absent": ({"3": np.inf}, "'inputs-00000061', class 3: inf"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_row_that_differs_is_named(folder: Path, kind: str) -> None:
    spoiled, message = SPOILED[kind]
    logits_BC = teacher_logits(folder)[:3].astype(np.float32)
    for column, value in spoiled.items():
        logits_BC[1, int(column)] = value
    with pytest.raises(TeacherError, match=message):
        check_logits(
            logits_BC,
            num_classes=CLASSES,
            teacher="a",
            unit="u",
            sample_ids=["inputs-00000060", "inputs-00000061", "inputs-00000062"],
            absent=tuple(ABSENT),
        )


def test_it_is_checked_in_every_unit(folder: Path) -> None:
    """Row 61 is no probe row: what is found there is found when its unit is labelled."""
    with pytest.raises(Exception, match="class 3 is one of absent_classes"):
        precompute(config_of(folder, padded(where=61.0, spoiled={"3": 0.5})))
    commits = folder / "cask" / "teachers" / "a" / "commits"
    assert "s0000-v0000-00000001.json" not in {path.name for path in commits.glob("*")}


def test_other_classes_under_the_same_name_are_refused(folder: Path) -> None:
    precompute(config_of(folder))
    before = identities_of(folder / "cask")
    with pytest.raises(ManifestMismatch, match="absent_classes"):
        precompute(config_of(folder, padded(absent=[0, 3, 11])))
    assert identities_of(folder / "cask") == before


@pytest.mark.parametrize("absent", [["12"], [12], ["11-12"], ["0-10"], [-1], ["1-"], [1.5], [True], "3"])
def test_classes_that_there_are_not_and_what_is_none_is_refused(folder: Path, absent: Any) -> None:
    with pytest.raises(ValidationError, match="absent_classes"):
        config_of(folder, padded(absent=absent))


def test_entries_made_of_it_lack_the_same_classes(folder: Path) -> None:
    uri = str(folder / "cask")
    precompute(
        config_of(
            folder,
            padded(),
            padded("b", seed=1),
            padded("c", absent=[0, 3], seed=2)
            | {"kwargs": {"classes": CLASSES, "absent": [0, 3], "seed": 2}},
        )
    )
    reencode(uri, teacher="a", into="a8", request=CodecRequest(name="dense8"))
    reencode(uri, teacher="a", into="top", request=CodecRequest(name="topk", k=12))
    combine(uri, teachers=["a", "b"], rule="mean", into="both", request=CodecRequest(name="dense16"))
    store, rows_B = cask(folder), np.arange(ROWS - 1)
    mean = (softmax(teacher_logits(folder), 1.0) + softmax(teacher_logits(folder, 1), 1.0)) / 2
    for name, expected in (("a8", softmax(teacher_logits(folder), 1.0)), ("both", mean)):
        found = softmax(store.logits(name, rows_B), 1.0)
        np.testing.assert_allclose(found, expected, atol=0.02 if name == "a8" else 2e-3)
        assert (found[:, ABSENT] == 0).all()
    with pytest.raises(ExchangeError, match="lack different classes"):
        combine(uri, teachers=["a", "c"], rule="mean", into="x", request=CodecRequest(name="dense16"))
    for rule in ("mean", "geometric"):
        combined = SoftTargets(store, ["a", "c"], rule).probabilities(rows_B, 2.0)
        assert np.isfinite(combined).all() and (combined[:, [0, 3]] == 0).all()
        assert ((combined[:, [10, 11]] > 0) == (rule == "mean")).all()
    assert verify(uri).problems == ()


def test_a_lost_manifest_is_made_again(folder: Path) -> None:
    precompute(config_of(folder))
    standing = objects_of(folder / "cask")
    path = folder / "cask" / "teachers" / "a" / "teacher.json"
    path.write_bytes(flip(path.read_bytes(), 300))
    assert repair(config_of(folder)).left == ()
    assert objects_of(folder / "cask") == standing


def test_a_student_learns_from_it_and_its_loss_is_finite(folder: Path) -> None:
    precompute(config_of(folder))
    targets = SoftTargets(cask(folder))
    p_BC = torch.from_numpy(targets.probabilities(np.arange(20), 2.0))
    student_BC = torch.zeros(20, CLASSES, requires_grad=True)
    loss = Distillation(hard_label_weight=0).compute(student_BC, p_BC, torch.full((20,), -1), 2.0)
    loss.backward()
    expected = softmax(teacher_logits(folder)[:20], 2.0)
    entropy = np.where(expected > 0, expected * np.log(np.where(expected > 0, expected, 1)), 0).sum(axis=1)
    np.testing.assert_allclose(loss.item(), 4 * (entropy + np.log(CLASSES)).mean(), rtol=1e-3)
    assert student_BC.grad is not None and torch.isfinite(student_BC.grad).all()
    assert (student_BC.grad[:, ABSENT] > 0).all()  # away from what cannot be
    with pytest.raises(StoreError, match="cannot be matched"):
        targets.check_logits()


def test_divergence_of_absent_classes_is_nothing_and_of_classes_that_one_lacks_infinite() -> None:
    logits_BC = np.array([[0.0, 1.0, -np.inf]])
    assert divergence(logits_BC, logits_BC, 1.0).tolist() == [0.0]
    p = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    q = np.exp([0.0, 1.0, 0.5]) / np.exp([0.0, 1.0, 0.5]).sum()
    expected = float((p * np.log(p / q[:2])).sum())
    np.testing.assert_allclose(divergence(logits_BC, np.array([[0.0, 1.0, 0.5]]), 1.0), [expected])
    assert np.isposinf(divergence(np.array([[0.0, 1.0, 0.5]]), logits_BC, 1.0)).all()
