"""Writes the JSON Schema of everything that is written down: a store's documents, run and student files.

`python -m softcask.jobs.export_schema docs/schema`. Others read stores by these files, so they are kept in
the repository, and a test holds them to the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.student.config import StudentConfig
from softcask.storage_schemas.documents import DOCUMENTS
from softcask.storage_schemas.manifest import Manifest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, str]:
    """File name -> its text, equal for equal code."""
    documents = {f"{model.softcask}.schema.json": _document(model) for model in DOCUMENTS}
    configs = {
        "run-file.schema.json": RunConfig.model_json_schema(),
        "student-file.schema.json": StudentConfig.model_json_schema(),
    }
    return {
        name: json.dumps({"$schema": _DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"
        for name, schema in sorted({**documents, **configs}.items())
    }


def export(folder: Path) -> None:
    """Write all schemas to a folder, and take out those that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = schemas()
    for stale in set(folder.glob("*.schema.json")) - {folder / name for name in wanted}:
        stale.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, "utf-8")


def _document(model: type[Manifest]) -> dict[str, Any]:
    """As it stands in a store: with what it is first, and its checksum last."""
    schema = model.model_json_schema(mode="serialization")
    schema["properties"] = {
        "softcask": {"const": model.softcask},
        **schema["properties"],
        "checksum": {"type": "string", "pattern": "^crc32c:[0-9a-f]{8}$"},
    }
    schema["required"] = ["softcask", *schema["required"], "checksum"]
    return schema


if __name__ == "__main__":
    export(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schema"))
