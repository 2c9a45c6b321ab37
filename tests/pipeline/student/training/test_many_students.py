"""Ten students from one store: it is read, and nothing but read; each says what it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softcask.pipeline.student import train_student
from softcask.pipeline.student.config import StudentConfig


def states(folder: str) -> dict[str, tuple[bytes, int, int]]:
    """Content, inode and time of every file."""
    return {
        str(path): (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_ten_students_change_no_byte_of_their_store_and_run_no_teacher(world: Any) -> None:
    before = states(world.store)
    for number in range(10):
        config = StudentConfig.model_validate(
            {
                "store": world.store,
                "python_path": [str(Path(__file__).parents[1])],
                "output": str(world.folder / f"student{number}"),
                "targets": {"temperature": 1 + 2 * number},
                "transfer_set": {
                    "kind": "arrays",
                    "inputs": str(world.folder / "inputs.npy"),
                    "id_prefix": "row",
                },
                "model": {"factory": "models_for_tests:mlp"},
                "training": {"epochs": 1, "batch_size": 64, "dtype": "float32", "seed": number},
            }
        )
        result = train_student(config)
        assert (result.teacher_passes, result.rows) == (0, 200)
        saved = json.loads((world.folder / f"student{number}" / "savings.json").read_text())
        assert saved["epochs"] == 1
        assert [teacher["teacher"] for teacher in saved["teachers"]] == ["a", "b"]
    assert states(world.store) == before
