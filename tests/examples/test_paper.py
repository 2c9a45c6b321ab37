"""The paper's sections: their parts alone, and all of them over a slice of the data, hardly trained."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import softcask
from examples.paper import teachers
from examples.paper.findings import Claim
from examples.paper.report import BEGIN, END, write
from examples.paper.rows import HELD_OUT, PARTS, Digits
from examples.paper.runs import Record, StudentRun, TeacherRun, described, label, read_record
from examples.paper.sections import SECTIONS
from examples.paper.teachers import Jittered, Recipe, bound_norms, train

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "mnist" / "data"
ROWS = {"train": 600, "t10k": 200}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's four files, with the first rows of each: their count is the second number of the header."""
    folder = tmp_path_factory.mktemp("data")
    for split, rows in ROWS.items():
        for name, header, row_bytes in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            file = f"{split}-{name}-ubyte.gz"
            whole = gzip.decompress((DATA / file).read_bytes())
            kept = whole[:4] + struct.pack(">I", rows) + whole[8 : header + rows * row_bytes]
            (folder / file).write_bytes(gzip.compress(kept, 1))
    return folder


def run(folder: Path, data: Path, *words: str) -> str:
    command = [sys.executable, "-m", "examples.paper", *words, "--tiny", "--folder", folder, "--data", data]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def digits(rows: int) -> Digits:
    random = np.random.default_rng(0)
    return Digits(
        images_N=random.integers(0, 256, (rows, 28, 28), dtype=np.uint8),
        labels_N=random.integers(0, 10, rows),
        positions_N=np.arange(rows),
    )


@pytest.mark.long
@pytest.mark.timeout(900)  # forty trainings, however short
def test_all_sections_go_the_whole_way_once_and_are_left_alone_afterwards(tmp_path: Path, data: Path) -> None:
    first = run(tmp_path, data)
    assert "not yet run" not in first
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert len(records) == len(
        {label(each) for section in SECTIONS.values() for each in section.tiny().runs()} | {"member-seed1"}
    )
    big, soft = (
        json.loads((tmp_path / "results" / f"{name}-seed0.json").read_text()) for name in ("big", "soft-800")
    )
    assert (big["rows"], soft["rows"]) == (200, 200)
    assert max(big["errors"], soft["errors"]) < 150  # 180 by guessing
    page = (tmp_path / "paper.md").read_text()
    assert all(f"## {section.title}" in page for section in SECTIONS.values())
    assert (tmp_path / "paper.png").read_bytes().startswith(b"\x89PNG")

    (store,) = map(softcask.open, map(str, (tmp_path / "cache" / "stores").glob("big-*")))
    assert (len(store.rows), list(store.teachers)) == (600, ["big-seed0"])
    assert (store.rows.labels == -1).all()
    results = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "nets").glob("*/result.json")]
    assert results
    assert {result["teacher_passes"] for result in results} == {0}

    again = run(tmp_path, data)
    assert "training" not in again
    assert "teacher passes" not in again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == records


@pytest.mark.long
def test_a_student_alone_brings_forth_its_teacher_and_a_lost_cache_is_made_again(
    tmp_path: Path, data: Path
) -> None:
    assert "training big-seed0" in run(tmp_path, data, "mnist", "--only", "soft-800")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "big-seed0.json",
        "soft-800-seed0.json",
    ]
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert "training big-seed0" in run(tmp_path, data, "few", "--only", "soft")


def test_jitter_shows_a_window_of_the_image_with_zeros_around_it() -> None:
    images = digits(3).images_N
    jittered = Jittered(torch.from_numpy(images), 2)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    windows = [padded[1, down : down + 28, right : right + 28] for down in range(5) for right in range(5)]
    torch.manual_seed(0)
    drawn = {
        tuple(np.rint(row.numpy() * 255).astype(int))
        for row in jittered.draw(torch.ones(500, dtype=torch.int64))
    }
    assert drawn == {tuple(window.reshape(-1).astype(int)) for window in windows}


def test_a_thinned_net_is_the_whole_one_with_units_set_to_zero_and_the_others_scaled() -> None:
    torch.manual_seed(0)
    net = teachers.mlp((6, 6))
    inputs_B = torch.rand(5, 784)
    recipe = Recipe(epochs=1, seed=0, input_dropout=0.25, hidden_dropout=0.5)
    torch.manual_seed(1)
    found = teachers.thinned(net, inputs_B, recipe)

    torch.manual_seed(1)
    kept = [
        torch.zeros(size).index_fill(0, torch.randperm(size)[:left], 1.0)
        for size, left in ((784, 588), (6, 3), (6, 3))
    ]
    active_B = inputs_B * kept[0] / 0.75
    for layer, mask in zip((net.linear1, net.linear2), kept[1:], strict=True):
        active_B = layer(active_B).relu() * mask / 0.5
    torch.testing.assert_close(found, net.logits(active_B))


def test_no_unit_s_incoming_weights_are_longer_than_the_bound_and_shorter_ones_stay() -> None:
    net = teachers.mlp((4, 4))
    with torch.no_grad():
        net.linear1.weight.copy_(torch.tensor([[0.5], [1.0], [2.0], [4.0]]).expand(4, 784) / 28)
        net.logits.weight.fill_(100.0)
    bound_norms(net, 1.5)
    assert net.linear1.weight.norm(dim=1).tolist() == pytest.approx([0.5, 1.0, 1.5, 1.5])
    assert (net.logits.weight == 100).all()


def test_an_interrupted_teacher_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(hidden_sizes=(8, 8), epochs=7, batch_size=16, seed=3)
    undisturbed = train(recipe, digits(50), tmp_path / "one").net

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    whole = teachers._train_epoch
    monkeypatch.setattr(teachers, "_train_epoch", lambda *a: killed() if a[-1] == 6 else whole(*a))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, digits(50), tmp_path / "two")
    monkeypatch.setattr(teachers, "_train_epoch", whole)
    resumed = train(recipe, digits(50), tmp_path / "two").net
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_rows_that_choose_are_not_those_that_teach() -> None:
    labels = np.arange(60_000) % 10
    fit, held_out = PARTS["fit"](labels), PARTS[HELD_OUT](labels)
    assert (fit[0], fit[-1], held_out[0], held_out[-1]) == (0, 49_999, 50_000, 59_999)
    assert set(labels[PARTS["fit, no 3"](labels)]) == {0, 1, 2, 4, 5, 6, 7, 8, 9}
    assert set(labels[PARTS["fit, only 7 and 8"](labels)]) == {7, 8}
    assert max(PARTS["fit, no 3"](labels).max(), PARTS["fit, only 7 and 8"](labels).max()) < 50_000
    assert len(PARTS["3 %"](labels)) == 1_800
    assert sorted([*PARTS["tenth"](labels), *PARTS["other nine tenths"](labels)]) == list(range(60_000))


@pytest.mark.parametrize("name", ["rate", "recipe"])
def test_what_is_chosen_is_chosen_without_a_test_row(name: str) -> None:
    for each in SECTIONS[name].runs():
        assert isinstance(each, StudentRun | TeacherRun)
        assert (each.rows, each.judged_on) == ("fit", HELD_OUT)
        taught_by = each.store.teachers if isinstance(each, StudentRun) else ()
        assert {(teacher.rows, teacher.judged_on) for teacher in taught_by} <= {("fit", HELD_OUT)}


def test_every_finding_has_three_seeds_and_every_run_a_file_of_its_own() -> None:
    runs = {each for section in SECTIONS.values() for each in section.runs()}
    assert len({label(each) for each in runs}) == len(runs)
    for section in SECTIONS.values():
        for line in section.lines:
            alone = line.key in ("together", "teacher") or section.name == "recipe"
            assert len({each.seed for each in line.runs}) >= (1 if alone else 3)


def test_a_record_counts_only_for_the_run_that_it_is_of(tmp_path: Path) -> None:
    mine = next(each for each in SECTIONS["mnist"].runs() if isinstance(each, StudentRun))
    record = Record(
        run=described(mine),
        errors=3,
        rows=10,
        wrong_by_class=[3] + [0] * 9,
        seconds=1.0,
        cpu_seconds=1.0,
        teachers={},
        versions={},
    )
    record.save(tmp_path / f"{label(mine)}.json")
    assert read_record(tmp_path, mine) == record
    assert read_record(tmp_path, replace(mine, epochs=mine.epochs + 1)) is None
    (big,) = mine.store.teachers
    other = replace(big, recipe=replace(big.recipe, jitter=1))
    assert read_record(tmp_path, replace(mine, store=replace(mine.store, teachers=(other,)))) is None


def test_a_claim_about_what_has_not_run_is_neither_true_nor_false() -> None:
    claim = Claim(text="a beats b", holds=lambda of: of["a"] < of["b"])
    assert [claim.verdict(of) for of in ({"a": 1.0}, {"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0})] == [
        None,
        True,
        False,
    ]


def test_tables_are_written_between_the_marks_and_nothing_else_of_the_page_changes(tmp_path: Path) -> None:
    path = tmp_path / "paper.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(path, "new")
    assert path.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        write(path, "new")
