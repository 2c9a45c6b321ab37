"""The same run has the same name, another has another, and attempts are told apart."""

from __future__ import annotations

import pytest

from softcask.jobs.submission.identity import attempts, checked_name, job_name, next_attempt
from softcask.storage_schemas.errors import ConfigError


def test_a_name_stands_for_all_that_would_run() -> None:
    name = job_name("precompute", "digest", {"A": "1"}, ["timm"])
    assert name.startswith("softcask-precompute-") and name == job_name(
        "precompute", "digest", {"A": "1"}, ["timm"]
    )
    others = {
        job_name("plan", "digest", {"A": "1"}, ["timm"]),
        job_name("precompute", "other", {"A": "1"}, ["timm"]),
        job_name("precompute", "digest", {"A": "2"}, ["timm"]),
        job_name("precompute", "digest", {"A": "1"}, []),
    }
    assert len(others | {name}) == 5


def test_attempts_are_those_of_the_name_in_their_order() -> None:
    known = ["a.10", "b", "a", "a.2", "a.x", "xa", "a.2.1"]
    assert attempts("a", known) == ["a", "a.2", "a.10"]
    assert next_attempt("a", []) == "a"
    assert next_attempt("a", ["a"]) == "a.2"
    assert next_attempt("a", ["a", "a.2", "a.10"]) == "a.11"


@pytest.mark.parametrize("stated", ["", "a/b", ".a", "a b", "x" * 101, "a\n"])
def test_a_stated_name_must_fit_an_address(stated: str) -> None:
    with pytest.raises(ConfigError, match="expected letters, digits"):
        checked_name(stated)


def test_a_stated_name_is_taken_as_it_is() -> None:
    assert checked_name("nightly-2026.1") == "nightly-2026.1"
