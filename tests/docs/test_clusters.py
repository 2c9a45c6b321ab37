"""What the pages on clusters hand out: a cluster file for `ray up`, and a script for Slurm."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml

from softcask.pipeline.config.credentials import secrets_in

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "clusters"
SBATCH = PAGES / "softcask.sbatch"
AWS = yaml.safe_load((PAGES / "aws.yaml").read_text())


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(AWS)] == []
    broken = AWS | {"max_worker": 3}
    assert not jsonschema.Draft7Validator(schema).is_valid(broken)


def test_its_head_does_no_work_and_its_workers_are_spot_machines_that_come_and_go() -> None:
    types = AWS["available_node_types"]
    assert types[AWS["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["spot-gpu"]["min_workers"] == 0
    assert types["spot-gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_its_dashboard_listens_to_loopback_and_nodes_ask_for_a_token_that_is_in_no_file() -> None:
    assert any("--dashboard-host=127.0.0.1" in command for command in AWS["head_start_ray_commands"])
    assert "--env RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    assert list(secrets_in(AWS)) == []


def test_its_boto3_is_the_one_of_the_images_botocore() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "docker" / "pins.txt").read_text().split())
    assert f"pip install --user boto3=={pinned['botocore']}" in AWS["head_setup_commands"]


def test_the_batch_script_is_clean() -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), str(SBATCH)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


STUBS = {
    "scontrol": 'printf "%s\\n" n1 n2 n3',
    # What a node is asked to do is written down; Ray is there until it is told to end, as with --block.
    "srun": """while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && export NODE=${1#*=}; shift; done
exec "$@\"""",
    "hostname": "echo 10.0.0.1 fe80::1",
    "ray": """echo "$NODE $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $*" >> "$LOG"
[[ $1 == status ]] && exit 0
tail -f /dev/null &
trap 'kill $!; echo "$NODE ended" >> "$LOG"; exit' TERM
wait""",
    # All three nodes are to be up first, which a run itself need not wait for.
    "softcask": """until [[ $(grep -c " start " "$LOG") == 3 ]]; do :; done
echo "softcask $*" >> "$LOG"; exit 2""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    for name, body in STUBS.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/bash\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "4123456",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_CPUS_PER_TASK": "8",
    }


def test_the_batch_script_starts_ray_on_every_node_and_ends_as_the_run_does(slurm: dict[str, str]) -> None:
    command = ["bash", str(SBATCH), "run.toml", "--set", "store.stats=false"]
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, timeout=60, check=False)
    log = Path(slurm["LOG"]).read_text().splitlines()
    assert done.returncode == 2, done.stderr
    address = "10.0.0.1:23456"
    (head,) = [line for line in log if line.startswith("n1 token 64 start")]
    assert re.search(r"--head --port=23456 --temp-dir=/tmp/ray-4123456 --include-dashboard=false", head)
    workers = sorted(line for line in log if f"--address={address}" in line and " start " in line)
    assert [line.split(" ", 1)[0] for line in workers] == ["n2", "n3"]
    assert all("--block --num-cpus=8" in line for line in [head, *workers])
    overrides = f"--set executor.kind=ray --set executor.address={address}"
    assert f"softcask precompute run.toml --set store.stats=false {overrides}" in log
    assert {line for line in log if line.endswith("ended")} == {"n1 ended", "n2 ended", "n3 ended"}


def test_the_batch_script_says_how_it_is_used(slurm: dict[str, str]) -> None:
    done = subprocess.run(["bash", str(SBATCH)], env=slurm, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "usage: sbatch softcask.sbatch RUN.toml [--set KEY=VALUE ...]\n",
    )
