"""Only variables that are asked for travel, and secrets never on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcask.jobs.submission.environment import requirements, secret_names, stated_variables
from softcask.storage_schemas.errors import ConfigError

HERE = {"AWS_PROFILE": "work", "HF_TOKEN": "hunter2", "HOME": "/home/me"}


def test_variables_are_taken_from_here_or_as_they_are_stated() -> None:
    assert stated_variables(["AWS_PROFILE", "HF_TOKEN", "OMP_NUM_THREADS=4", "EMPTY="], HERE) == {
        "AWS_PROFILE": "work",
        "HF_TOKEN": "hunter2",
        "OMP_NUM_THREADS": "4",
        "EMPTY": "",
    }
    assert stated_variables([], HERE) == {}


@pytest.mark.parametrize(
    "stated",
    [
        "HF_TOKEN=hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "INDEX=https://me:hunter2@host/simple",
        "X=hunter2 AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_a_secret_that_is_written_out_is_refused_without_showing_it(stated: str) -> None:
    with pytest.raises(ConfigError, match="looks like a secret.*give its name alone") as raised:
        stated_variables([stated], HERE)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("stated", "message"), [("NOPE", "no such variable"), ("A-B", "expected NAME"), ("=x", "expected NAME")]
)
def test_what_is_no_variable_is_refused(stated: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stated_variables([stated], HERE)


def test_secrets_are_told_by_name_and_by_value() -> None:
    variables = {"HF_TOKEN": "a", "URL": "https://me:pw@host", "AWS_PROFILE": "work"}
    assert secret_names(variables) == ["HF_TOKEN", "URL"]


def test_requirements_come_as_they_are_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("# for the teacher\ntimm==1.0\n\n  einops\n")
    assert requirements(["torchvision", str(tmp_path / "needs.txt")]) == [
        "torchvision",
        "timm==1.0",
        "einops",
    ]


def test_requirements_with_a_password_or_in_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--pip: an address with a credential in it") as raised:
        requirements(["--index-url=https://me:hunter2@host/simple"])
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        requirements([str(tmp_path / "none.txt")])
