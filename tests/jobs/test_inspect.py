"""`softcask inspect` and `softcask verify`, against numbers worked out from the teachers themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests import toy_models
from tests.jobs.conftest import Project
from tests.stores import MadeStore, all_objects, flip, sealed_store
from tests.worlds import objects_of, write_rows
from typer.testing import Result

from softcask.pipeline.store.access.objects import StoreObjects

Softcask = Callable[..., Result]
NAMES = ("ant", "bee", "cow", "doe", "eel")


def probabilities(folder: Path, row: int, seed: int, temperature: float) -> NDArray[np.float64]:
    inputs = torch.from_numpy(np.load(folder / "inputs.npy")[row : row + 1])
    with torch.inference_mode():
        logits = toy_models.net(seed)(inputs * 0.5)[0].double().numpy()
    exponentials = np.exp(logits / temperature)
    return exponentials / exponentials.sum()  # type: ignore[no-any-return]


def looked_at(softcask: Softcask, *arguments: str) -> dict[str, Any]:
    shown = softcask("inspect", *arguments, "--json")
    assert shown.exit_code == 0, shown.stderr
    answer: dict[str, Any] = json.loads(shown.stdout)
    return answer


def test_an_overview_tells_what_a_store_holds(softcask: Softcask, project: Project) -> None:
    write_rows(project.folder, unreadable=(7,))
    softcask("precompute", project.run)
    found = looked_at(softcask, project.store)
    assert (found["state"], found["generation"], found["classes"]) == ("complete", 1, 5)
    assert (found["rows"], found["labelled"], found["quarantined"]) == (229, 229, 1)
    assert found["segments"] == [{"segment": "s0000", "rows": 230, "unit_rows": 32, "units": 8}]
    teacher = found["teachers"]["b"]
    assert (teacher["role"], teacher["units"], teacher["planned_units"], teacher["rows"]) == (
        "member",
        8,
        8,
        229,
    )
    unit_objects = {
        key: data
        for key, data in objects_of(Path(project.store)).items()
        if key.startswith("teachers/b/") and ("/c/" in key or "/stats/" in key)
    }
    assert teacher["bytes"] == sum(map(len, unit_objects.values()))
    told = softcask("inspect", project.store).stdout
    assert "complete, sealed generation 1" in told and teacher["fingerprint"][7:19] in told


def test_a_rows_top_classes_are_the_softmax_of_its_teachers(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    (found,) = looked_at(softcask, project.store, "--row", "inputs-00000017")["samples"]
    assert found["label"] == NAMES[np.load(project.folder / "labels.npy")[17]]
    for temperature in (1, 4, 20):
        a, b = (probabilities(project.folder, 17, seed, temperature) for seed in (0, 1))
        for name, expected in (("a", a), ("b", b), ("mean of members", (a + b) / 2)):
            shown = found["teachers"][name][str(temperature)]
            assert [each["class"] for each in shown] == [NAMES[c] for c in np.argsort(-expected)]
            # fp16 keeps a logit's distance to the row's maximum to 11 bits.
            np.testing.assert_allclose(
                [each["probability"] for each in shown], -np.sort(-expected), rtol=5e-3
            )


def test_rows_are_shown_as_tables_for_people(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    shown = softcask(
        "inspect", project.store, "--row", "inputs-00000000", "--row", "inputs-00000001", "--top", "2"
    )
    assert shown.exit_code == 0
    assert "row inputs-00000000, label" in shown.stdout and "row inputs-00000001, label" in shown.stdout
    best = probabilities(project.folder, 0, 0, 20).argmax()
    assert f"{NAMES[best]}  0." in shown.stdout
    assert all(head in shown.stdout for head in ("T = 1", "T = 4", "T = 20", "mean of members"))


def test_temperatures_and_the_number_of_classes_can_be_chosen(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    options = ("--row", "inputs-00000002", "--temperatures", "2,8.5", "--top", "3")
    (found,) = looked_at(softcask, project.store, *options)["samples"]
    assert {t: len(top) for t, top in found["teachers"]["a"].items()} == {"2": 3, "8.5": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--row", "17"), "has no row '17'; its ids look like 'inputs-00000000'"),
        (("--row", "inputs-00000003"), "row 'inputs-00000003' of"),
        (("--row", "inputs-00000001", "--temperatures", "1;4"), "--temperatures 1;4: expected numbers"),
        (("--row", "inputs-00000001", "--temperatures", "0"), "must be a finite number above 0"),
        (("--row", "inputs-00000001", "--temperatures", "900"), "good for 0.5 to 20"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    softcask: Softcask, project: Project, options: tuple[str, ...], message: str
) -> None:
    write_rows(project.folder, unreadable=(3,))
    softcask("precompute", project.run)
    shown = softcask("inspect", project.store, *options)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert message in shown.stderr


def test_there_must_be_a_store(softcask: Softcask, tmp_path: Path) -> None:
    for command in ("inspect", "verify"):
        shown = softcask(command, str(tmp_path))
        assert shown.exit_code == 2
        assert f"there is no softcask store at {tmp_path}" in shown.stderr


def test_an_unfinished_store_is_shown_when_asked_for(softcask: Softcask, tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "cask"))
    made.add_segment(20)
    made.add_teacher("alpha")
    made.add_teacher("beta")
    made.commit_all("alpha")
    made.commit("beta", 0)
    refused = softcask("inspect", made.objects.uri)
    assert refused.exit_code == 2 and "--allow-partial" in refused.stderr
    found = looked_at(softcask, made.objects.uri, "--allow-partial", "--row", "id-019")
    assert (found["state"], found["generation"]) == ("partial", 0)
    assert {name: (t["units"], t["rows"]) for name, t in found["teachers"].items()} == {
        "alpha": (3, 20),
        "beta": (1, 8),
    }
    thoughts = found["samples"][0]["teachers"]
    assert thoughts["alpha"] and thoughts["beta"] is None and thoughts["mean of members"] is None
    shown = softcask("inspect", made.objects.uri, "--allow-partial", "--row", "id-019")
    assert "not labelled yet" in shown.stdout


def test_a_sound_store_passes(softcask: Softcask, tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    passed = softcask("verify", made.objects.uri)
    assert passed.exit_code == 0, passed.stderr
    assert "is sound" in passed.stdout
    report = json.loads(softcask("verify", made.objects.uri, "--json").stdout)
    held = all_objects(made.objects)
    assert report == {
        "objects": len(held),
        "bytes": sum(map(len, held.values())),
        "problems": [],
        "orphans": 0,
    }


def test_a_flipped_bit_and_a_lost_object_are_named(softcask: Softcask, tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    shards = [key for key in all_objects(made.objects) if "/c/1/" in key]
    flipped, lost = Path(made.objects.path(shards[0])), Path(made.objects.path(shards[1]))
    flipped.write_bytes(flip(flipped.read_bytes(), 5))
    lost.unlink()
    found = softcask("verify", made.objects.uri)
    assert found.exit_code == 1
    assert shards[0] in found.stderr and f"{shards[1]} is missing" in found.stderr
    assert "2 problems" in found.stderr and "sound" not in found.stdout
    as_json = softcask("verify", made.objects.uri, "--json")
    assert as_json.exit_code == 1
    assert [problem["key"] for problem in json.loads(as_json.stdout)["problems"]] == sorted(shards[:2])


def test_who_finds_damage_is_told_what_mends_it(softcask: Softcask, tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    made.objects.replace("catalog/newest.json", b"{}")
    assert "softcask repair RUN.toml --check" in softcask("verify", made.objects.uri).stderr


def test_objects_of_no_commit_are_counted_and_do_no_harm(softcask: Softcask, tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    StoreObjects.at(made.objects.uri).publish("teachers/alpha/stats/s0000/v0000/part-00000099.parquet", b"x")
    passed = softcask("verify", made.objects.uri)
    assert passed.exit_code == 0
    assert "besides, 1 object of no commit" in passed.stdout
