"""The commands over a store on S3, as a person calls them: killed in the middle, resumed, trained from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.conftest import Project
from tests.jobs.test_cli import SCRIPT
from tests.jobs.test_train import STUDENT
from tests.s3_server import S3, SECRET, answering
from typer.testing import Result

Softcask = Callable[..., Result]

PLAIN = ("--set", "store.compression=none")  # as a store on a disk is by default


@pytest.fixture
def remote(project: Project, s3: S3) -> Project:
    project.edit('uri = "cask"', f'uri = "{s3.uri}"')
    return project


def kept(s3: S3) -> dict[str, bytes]:
    """Every object of the store, `runs/` apart."""
    found = {key.removeprefix("some/cask/"): data for key, data in s3.standing().items()}
    return {key: data for key, data in found.items() if not key.startswith("runs/")}


def undisturbed(softcask: Softcask, project: Project) -> dict[str, bytes]:
    done = softcask("precompute", project.run, *PLAIN, "--set", f"store.uri={project.folder / 'local'}")
    assert done.exit_code == 0, done.stderr
    found = {str(p.relative_to(project.folder / "local")): p for p in (project.folder / "local").rglob("*")}
    return {
        key: path.read_bytes()
        for key, path in found.items()
        if path.is_file() and not key.startswith("runs/")
    }


@pytest.fixture
def killed_by_the_server(remote: Project, s3: S3) -> Iterator[Callable[[str], None]]:
    """Runs `precompute`, killed when it sends its first request for a key that ends so."""
    started: list[subprocess.Popen[bytes]] = []
    known = threading.Event()

    def kill(handler: Any, _: bytes) -> int:
        known.wait(60)
        started[0].send_signal(signal.SIGKILL)
        handler.close_connection = True
        return 0

    def run(key: str) -> None:
        s3.fault(kill, method="PUT", key=key)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([SCRIPT, "precompute", remote.run, *PLAIN], env=os.environ, **quiet))
        known.set()
        _, said = started[0].communicate(timeout=120)
        assert started[0].returncode == -signal.SIGKILL, said.decode()

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_a_run_killed_within_a_unit_goes_on_where_it_stopped(
    softcask: Softcask, remote: Project, s3: S3, killed_by_the_server: Callable[[str], None]
) -> None:
    killed_by_the_server("teachers/b/logits/s0000/v0000/row_max/c/3")
    before = kept(s3)
    half = {key for key in before if key.endswith("/c/3") or key.endswith("/c/3/0")}
    assert "teachers/b/logits/s0000/v0000/logits/c/3/0" in half
    committed = [key for key in before if "/commits/" in key]
    done = softcask("precompute", remote.run, *PLAIN, "--json")
    assert done.exit_code == 0, done.stderr
    after = kept(s3)
    assert after == undisturbed(softcask, remote)
    assert {key: after[key] for key in before} == before
    new = {name: teacher["new_rows"] for name, teacher in json.loads(done.stdout)["teachers"].items()}
    rows = sum(6 if key.endswith("00000007.json") else 32 for key in committed)
    assert 0 < sum(new.values()) == 2 * 230 - rows < 2 * 230


def test_a_student_learns_from_s3_what_it_learns_from_a_disk(
    softcask: Softcask, remote: Project, s3: S3
) -> None:
    assert softcask("precompute", remote.run, *PLAIN).exit_code == 0
    shown = softcask("inspect", s3.uri, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["rows"] == 230
    verified = softcask("verify", s3.uri)
    assert verified.exit_code == 0, verified.stderr
    undisturbed(softcask, remote)
    weights = {}
    for place in (s3.uri, str(remote.folder / "local")):
        path = remote.folder / "student.toml"
        path.write_text(STUDENT.replace('store = "cask"', f'store = "{place}"'))
        output = remote.folder / f"student-{place == s3.uri}"
        trained = softcask("train", str(path), "--json", "--set", f"output={output}")
        assert trained.exit_code == 0, trained.stderr
        weights[place] = next(output.glob("*.safetensors")).read_bytes()
    assert len(set(weights.values())) == 1


def test_a_second_run_writes_nothing_but_its_record(softcask: Softcask, remote: Project, s3: S3) -> None:
    assert softcask("precompute", remote.run).exit_code == 0
    before = kept(s3)
    again = softcask("precompute", remote.run)
    assert "nothing to do" in again.stdout
    assert kept(s3) == before


def test_no_secret_is_shown_or_kept(softcask: Softcask, remote: Project, s3: S3) -> None:
    done = softcask("precompute", remote.run)
    s3.fault(answering(403, "SignatureDoesNotMatch"), times=10**6)
    refused = softcask("precompute", remote.run)
    assert (done.exit_code, refused.exit_code) == (0, 2)
    assert "403 SignatureDoesNotMatch" in refused.stderr and "AWS_SECRET_ACCESS_KEY" in refused.stderr
    for said in (done.stdout, done.stderr, refused.stdout, refused.stderr):
        assert SECRET not in said
    assert not any(SECRET.encode() in data for data in s3.standing().values())


@pytest.mark.parametrize("command", ["plan", "precompute"])
def test_credentials_in_an_address_are_refused_before_anything_is_done_with_it(
    softcask: Softcask, project: Project, command: str
) -> None:
    address = f"s3://AKIAEXAMPLE:{SECRET}@bucket/cask"
    refused = softcask(command, project.run, "--set", f"store.uri={address}")
    assert refused.exit_code == 2
    assert "a password in it" in " ".join(refused.stderr.split())
    assert SECRET[:8] not in refused.stdout + refused.stderr


def test_an_address_with_credentials_is_not_shown_by_those_who_only_read(softcask: Softcask) -> None:
    address = f"s3://AKIAEXAMPLE:{SECRET}@bucket/cask"
    for command in ("inspect", "verify", "gc"):
        refused = softcask(command, address)
        assert refused.exit_code == 2
        assert "a password in it" in " ".join(refused.stderr.split())
        assert SECRET[:8] not in refused.stdout + refused.stderr


def test_a_mistyped_bucket_is_named(softcask: Softcask, project: Project, s3: S3, tmp_path: Path) -> None:
    refused = softcask("precompute", project.run, "--set", "store.uri=s3://no-such-bucket-here/cask")
    assert refused.exit_code == 2
    assert "no-such-bucket-here" in refused.stderr
    assert "There is no such bucket" in " ".join(refused.stderr.split())
