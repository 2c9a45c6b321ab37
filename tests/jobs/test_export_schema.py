"""The schemas in docs/ are those of the code, and real documents keep to them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from tests.stores import all_objects, sealed_store

from softcask.jobs.export_schema import schemas

KEPT = Path(__file__).parents[2] / "docs" / "schema"


def test_the_schemas_in_docs_are_up_to_date_run_make_schema_if_not() -> None:
    assert {path.name: path.read_text("utf-8") for path in KEPT.iterdir()} == schemas()


def test_the_module_writes_them_and_takes_out_stale_ones(tmp_path: Path) -> None:
    (tmp_path / "old.schema.json").write_text("{}")
    (tmp_path / "README.md").write_text("stays")
    command = [sys.executable, "-m", "softcask.jobs.export_schema", str(tmp_path)]
    subprocess.run(command, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", *schemas()}


@pytest.mark.parametrize("name", sorted(schemas()))
def test_each_is_a_valid_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schemas()[name]))


def test_every_document_of_a_real_store_keeps_to_its_schema(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    seen = set()
    for key, data in all_objects(made.objects).items():
        if key.endswith(".json") and "/logits/" not in key:
            document = json.loads(data)
            kind = document["softcask"]
            seen.add(kind)
            validator = jsonschema.Draft202012Validator(json.loads(schemas()[f"{kind}.schema.json"]))
            assert validator.is_valid(document), key
            assert not validator.is_valid({**document, "surprise": 1}), key
            assert not validator.is_valid(
                {name: value for name, value in document.items() if name != "checksum"}
            )
    of_runs = {"run", "progress", "claim", "source"}
    assert seen == {"store", "segment", "teacher", "commit", "generation", "pointer"} | of_runs
