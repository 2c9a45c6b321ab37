from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.precompute.config import ClassesOptions, RunConfig, load_run
from softcask.pipeline.transfer_sets.idx import IdxOptions
from softcask.storage_schemas.codecs.registry import CODECS
from softcask.storage_schemas.errors import ConfigError

VALID = """
[store]
uri = "store"

[transfer_set]
kind = "idx"
images = "data/train-images-idx3-ubyte.gz"

[classes]
count = 3

[[teachers]]
kind = "torch"
name = "first"
factory = "nets:small"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_run(write(folder, text), overrides)
    return [line.strip().replace(f"{folder}/", "") for line in str(error.value).splitlines()[1:]]


def test_a_run_file_names_what_is_needed_and_nothing_more(tmp_path: Path) -> None:
    config = load_run(write(tmp_path, VALID))
    assert config.store.uri == str(tmp_path / "store") and config.store.codec == CodecRequest()
    assert isinstance(config.transfer_set, IdxOptions)
    assert config.transfer_set.images == str(tmp_path / "data/train-images-idx3-ubyte.gz")
    assert config.teachers[0].kind == "torch" and config.teachers[0].name == "first"
    assert config.classes.class_names == ("0", "1", "2")
    assert config.executor.kind == "ray" and config.executor.in_flight == 2
    assert config.python_path == (str(tmp_path),)


def test_a_config_survives_json_with_what_its_kinds_alone_know(tmp_path: Path) -> None:
    config = load_run(write(tmp_path, VALID))
    dumped = config.model_dump(mode="json")
    assert dumped["transfer_set"]["images"].endswith("idx3-ubyte.gz")
    assert dumped["teachers"][0]["factory"] == "nets:small"
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_its_json_schema_can_be_made() -> None:
    assert RunConfig.model_json_schema()["properties"]["teachers"]["items"]["required"] == ["kind"]


def test_all_problems_of_all_sections_are_told_at_once(tmp_path: Path) -> None:
    text = """stroe = "x"
[store]
codec = "mp3"

[transfer_set]
kind = "arrays"
input = "x.npy"
max_quarantined = 2

[classes]
names = ["a", "b", "a"]

[[teachers]]
kind = "torch"
name = "first"
facotry = "nets:small"

[[teachers]]
name = "first"

[[teachers]]
kind = "tensorflow"
name = "First"

[executor]
in_flight = 9
"""
    arrays = "inputs, labels, ids, inputs_key, labels_key, ids_key, id_prefix"
    kinds = "onnx, timm, torch, torchvision, transformers"
    teachers = "names must differ by more than upper and lower case"
    told = problems(tmp_path, text)
    assert told[0].startswith("run.toml:1: stroe: unknown key; did you mean 'store'? known keys: store, ")
    assert told[8].startswith("run.toml:16: teachers[0].facotry: unknown key; did you mean 'factory'? known")
    del told[8], told[0]
    assert told == [
        "run.toml:2: store.uri: field required",
        f"run.toml:3: store.codec: unknown codec 'mp3'; known codecs: {', '.join(sorted(CODECS))}",
        "run.toml:5: transfer_set.inputs: field required",
        "run.toml:7: transfer_set.input: unknown key; did you mean 'inputs'? "
        f"known keys: kind, max_quarantined, {arrays}",
        "run.toml:8: transfer_set.max_quarantined: input should be less than or equal to 1, found 2",
        "run.toml:11: classes.names: class name 'a' stands 2 times; expected each once",
        "run.toml:13: teachers[0].factory: field required",
        f"run.toml:18: teachers[1].kind: says no kind of teacher; known kinds: {kinds}",
        f"run.toml:19: teachers[1].name: 'first' is taken by teachers[0]; {teachers}",
        f"run.toml:22: teachers[2].kind: unknown teacher kind 'tensorflow'; known kinds: {kinds}",
        f"run.toml:23: teachers[2].name: 'First' is taken by teachers[0]; {teachers}",
        "run.toml:26: executor.in_flight: input should be less than or equal to 8, found 9",
    ]


def test_missing_sections_are_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "") == [
        f"run.toml: {section}: field required" for section in ("classes", "store", "teachers", "transfer_set")
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"transfer_set.kind": "imagenet"}, "unknown transfer set kind 'imagenet'; known kinds: arrays, "),
        ({"transfer_set": "idx"}, "says no kind of transfer set; known kinds: arrays, "),
        ({"transfer_set.kind": ["idx"]}, "says no kind of transfer set"),
        ({"teachers": []}, "no teacher; expected at least one"),
        ({"teachers": 3}, "input should be a valid tuple, found 3"),
        ({"teachers[0].name": "no spaces"}, "should match pattern"),
        ({"executor.kind": "slurm"}, "input should be 'ray' or 'serial', found 'slurm'"),
        ({"executor.max_retries": -1}, "greater than or equal to 0"),
        ({"store.unit_rows": 0}, "greater than or equal to 1"),
        ({"store.uri": "s3://key:hunter2@bucket/x"}, "a URL with a password in it"),
        ({"teachers[0].kwargs.api_key": "hunter2"}, "looks like a secret"),
        ({"python_path": "."}, "valid tuple"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, overrides: dict[str, Any], told: str) -> None:
    found = problems(tmp_path, VALID, overrides)
    assert len(found) == 1 and told in found[0]
    assert found[0].startswith(f"--set {next(iter(overrides))}: ")
    assert "hunter2" not in found[0]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("", "found neither names nor count nor from_teacher, expected one of them"),
        ("count = 2\nnames = ['a', 'b']", "found names and count, expected one of them"),
        ("count = 1", "greater than or equal to 2"),
        ("names = ['a']", "1 class names, expected at least 2"),
        ("names = ['a', '']", "at least 1 character"),
    ],
)
def test_classes_are_named_or_counted(tmp_path: Path, section: str, told: str) -> None:
    found = problems(tmp_path, VALID.replace("count = 3", section))
    assert len(found) == 1 and told in found[0] and ": classes" in found[0]


def test_names_of_classes_are_kept_in_order() -> None:
    assert ClassesOptions(names=("cat", "dog")).class_names == ("cat", "dog")
    assert ClassesOptions(count=2).class_names == ("0", "1")


def test_a_store_in_memory_is_refused_where_workers_are_other_processes(tmp_path: Path) -> None:
    told = problems(tmp_path, VALID, {"store.uri": "memory://cask", "executor.kind": "ray"})
    assert len(told) == 1
    assert "memory://cask is in this process's memory" in told[0]
    assert 'executor.kind = "serial"' in told[0]
    serial = {"store.uri": "memory://cask", "executor.kind": "serial"}
    assert load_run(write(tmp_path, VALID), serial).store.uri == "memory://cask"
