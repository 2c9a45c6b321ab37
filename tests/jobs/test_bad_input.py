"""Mistakes people make: each ends in one clear message and exit code 2, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from tests.jobs.conftest import Project
from tests.worlds import objects_of
from typer.testing import Result

Softcask = Callable[..., Result]


@pytest.fixture
def refusal(softcask: Softcask, project: Project) -> Callable[..., str]:
    """Runs precompute with settings; the message that it ends in."""

    def refused(*settings: str, command: str = "precompute") -> str:
        flags = [part for setting in settings for part in ("--set", setting)]
        ended = softcask(command, project.run, *flags)
        assert ended.exit_code == 2, ended.output
        assert isinstance(ended.exception, SystemExit)
        warnings, _, message = ended.stderr.rpartition("error: ")
        assert all(line.startswith("warning: ") for line in warnings.splitlines())
        assert message and "Traceback" not in ended.stderr and ended.stdout == ""
        return message

    return refused


def test_no_such_run_file(softcask: Softcask, tmp_path: Path) -> None:
    ended = softcask("precompute", str(tmp_path / "none.toml"))
    assert (ended.exit_code, ended.stderr) == (
        2,
        f"error: {tmp_path}/none.toml: no such file; expected a TOML file\n",
    )


def test_a_missing_file_of_the_transfer_set(refusal: Callable[..., str], project: Project) -> None:
    assert f"{project.folder}/gone.npy: no such file" in refusal("transfer_set.inputs=gone.npy")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_idx_file(refusal: Callable[..., str], project: Project, zipped: bool) -> None:
    data = struct.pack(">BBBBIII", 0, 0, 8, 3, 230, 6, 4) + bytes(230 * 24 - 7)
    (project.folder / "images").write_bytes(gzip.compress(data) if zipped else data)
    project.edit(
        'kind = "arrays"\ninputs = "inputs.npy"\nlabels = "labels.npy"', 'kind = "idx"\nimages = "images"'
    )
    message = refusal()
    assert f"{project.folder}/images" in message and "truncated" in message


def test_a_teacher_with_another_number_of_classes(refusal: Callable[..., str]) -> None:
    message = refusal("teachers[0].kwargs={classes = 4}")
    assert "teacher 'a'" in message and "expected logits of shape [32, 5], found [32, 4]" in message


def test_ids_that_repeat(refusal: Callable[..., str], project: Project) -> None:
    ids = np.array([f"row-{number % 200}" for number in range(230)])
    np.save(project.folder / "ids.npy", ids)
    message = refusal("transfer_set.ids=ids.npy")
    assert "30 sample ids repeat: 'row-0' at 0, 200" in message


def test_unknown_keys_and_kinds_come_all_at_once_with_the_known_ones(
    refusal: Callable[..., str], project: Project
) -> None:
    project.edit("unit_rows = 32", "unit_row = 32")
    project.edit('kind = "arrays"', 'kind = "jpeg"')
    project.edit('kind = "torch"', 'kind = "oracle"')
    message = refusal()
    assert "3 problems" in message
    assert "run.toml:5: store.unit_row: unknown key; did you mean 'unit_rows'?" in message
    assert "unknown transfer set kind 'jpeg'; known kinds: arrays, " in message
    assert (
        "run.toml:20: teachers[0].kind: unknown teacher kind 'oracle'; known kinds: onnx, timm, torch, "
        in message
    )


def test_a_label_out_of_range(refusal: Callable[..., str], project: Project) -> None:
    labels = np.load(project.folder / "labels.npy")
    labels[17] = 5
    np.save(project.folder / "labels.npy", labels)
    assert "'inputs-00000017' (position 17) has label 5, expected 0 to 4" in refusal()


@pytest.mark.parametrize("command", ["plan", "precompute"])
def test_a_store_below_a_file(refusal: Callable[..., str], project: Project, command: str) -> None:
    message = refusal("store.uri=run.toml/store", command=command)
    assert f"{project.run}/store" in message and "Not a directory" in message


def test_a_store_where_something_else_lies(refusal: Callable[..., str], project: Project) -> None:
    before = objects_of(project.folder)
    assert "is no softcask store" in refusal("store.uri=.")
    assert objects_of(project.folder) == before


def test_a_filesystem_that_nobody_knows(refusal: Callable[..., str]) -> None:
    assert "cannot open gopher://host/store" in refusal("store.uri=gopher://host/store")


def test_a_store_without_room(
    refusal: Callable[..., str], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcask.pipeline.store.access.objects.StoreObjects.free_bytes", lambda _: 1000)
    message = refusal()
    assert "are to be written" in message and "Nothing was labelled yet" in message
    assert "where 0.0 MiB are free" in message
    assert not Path(project.store, "teachers/a/commits").exists()


def test_a_store_made_by_a_newer_version(
    softcask: Softcask, refusal: Callable[..., str], project: Project
) -> None:
    softcask("precompute", project.run)
    root = Path(project.store, "softcask.json")
    newer = root.read_bytes().replace(b'"format_version": 1', b'"format_version": 7')
    blank = re.sub(rb"crc32c:[0-9a-f]{8}", b"crc32c:00000000", newer)
    root.write_bytes(re.sub(rb"crc32c:0{8}", b"crc32c:%08x" % google_crc32c.value(blank), blank))
    before = objects_of(Path(project.store))
    assert "softcask.json has format version 7" in refusal()
    looked = softcask("inspect", project.store)
    assert looked.exit_code == 2 and "Upgrade softcask" in looked.stderr
    assert objects_of(Path(project.store)) == before


def test_a_changed_teacher_under_an_old_name(
    softcask: Softcask, refusal: Callable[..., str], project: Project
) -> None:
    softcask("precompute", project.run)
    before = objects_of(Path(project.store))
    message = refusal("teachers[1].kwargs.seed=2")
    assert "teacher 'b'" in message and "fingerprint.kwargs.seed: found 2, expected 1" in message
    assert objects_of(Path(project.store)) == before


def test_a_teachers_code_that_raises(refusal: Callable[..., str]) -> None:
    message = refusal("teachers[0].factory=toy_models:raising")
    assert "teacher 'a'" in message and "RuntimeError: no such checkpoint on the moon" in message


def test_a_teacher_that_gives_no_number(refusal: Callable[..., str]) -> None:
    message = refusal("teachers[0].factory=toy_models:faulty", "teachers[0].kwargs={where = 70.0}")
    assert "teacher 'a', unit s0000-v0000-00000004" in message and "'inputs-00000140'" in message


def test_a_setting_that_is_none(refusal: Callable[..., str]) -> None:
    assert "--set store.uri: expected key.path=value" in refusal("store.uri")


@pytest.mark.parametrize(
    "line",
    [
        "export {store} out.parquet --rows {gone}",
        "drop {store} --rows {gone}",
        "import npy {gone} {store} --name z",
        "import tinyvit {gone} {store} --name z --classes 5",
        "import npy inputs.npy {store} --name z --ids {gone}",
        "import npy inputs.npy {store} --name z --class-names {gone}",
    ],
)
def test_a_file_that_an_option_names_and_that_is_not_there(
    softcask: Softcask, project: Project, line: str
) -> None:
    softcask("precompute", project.run)
    gone = project.folder / "gone"
    names = {"store": project.store, "gone": gone}
    words = line.replace("inputs.npy", str(project.folder / "inputs.npy")).split()
    ended = softcask(*(word.format(**names) for word in words))
    assert ended.exit_code == 2
    assert f"{gone}: no such file" in ended.stderr
    assert "transfer_set" not in ended.stderr and "Errno" not in ended.stderr


def test_a_codec_to_be_chosen_by_nothing(refusal: Callable[..., str]) -> None:
    message = refusal("store.codec.name=auto")
    assert "max_bytes (bytes a row)" in message and "name no codec" in message


def test_a_budget_that_no_codec_meets(softcask: Softcask, project: Project) -> None:
    settings = ("--set", "store.codec.max_kl=1e-15")
    ended = softcask("plan", project.run, *settings, "--json")
    assert ended.exit_code == 2 and "no codec meets the budget for a, b" in ended.stderr
    told = json.loads(ended.stdout)["teachers"]["a"]
    assert (told["codec"], told["unmet"]) == ("", True)
    met = json.loads(softcask("plan", project.run, "--set", "store.codec.max_kl=1e-3", "--json").stdout)
    assert (met["teachers"]["a"]["codec"], met["teachers"]["a"]["chosen"]) == ("dense8", "dense8")


def test_rows_that_go_by_other_ids_since_their_file_has_another_name(
    softcask: Softcask, refusal: Callable[..., str], project: Project
) -> None:
    softcask("precompute", project.run)
    (project.folder / "inputs.npy").rename(project.folder / "more.npy")
    message = refusal("transfer_set.inputs=more.npy")
    assert (
        "They are the same rows under other ids" in message and 'transfer_set.id_prefix = "inputs"' in message
    )
    again = softcask(
        "precompute",
        project.run,
        "--set",
        "transfer_set.inputs=more.npy",
        "--set",
        "transfer_set.id_prefix=inputs",
    )
    assert again.exit_code == 0 and "nothing to do" in again.stdout
