"""The manifests say what KubeRay understands, and what a cluster of strangers' code on spot nodes needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.scripts.scripts import start

from softcask.pipeline.config.credentials import secrets_in

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "docker" / "kuberay").glob("*.yaml"))
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay.schema.yaml").read_text())
CLUSTERS = ["rayjob", "raycluster"]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((ROOT / "docker" / "kuberay" / f"{name}.yaml").read_text()))


def cluster_spec(name: str) -> Any:
    (document,) = documents(name)
    return document["spec"].get("rayClusterSpec", document["spec"])


def groups(name: str) -> list[Any]:
    spec = cluster_spec(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_says_only_what_is_understood(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for document in yaml.safe_load_all(path.read_text()):
        assert [error.message for error in validator.iter_errors(document)] == []


def test_the_schema_lets_no_object_say_more_than_it_lists() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    objects = [each for each in _tables(SCHEMA) if each.get("type") == "object"]
    assert len(objects) > 30
    assert all("additionalProperties" in each for each in objects)
    assert not any(each["additionalProperties"] is True for each in objects)


def test_a_mistake_anywhere_in_a_manifest_is_found() -> None:
    """Every key, mistyped in turn; labels, selectors and options of `ray start` are free, and left out."""
    free = {"rayStartParams", "nodeSelector", "annotations", "labels"}
    validator = jsonschema.Draft202012Validator(SCHEMA)
    (manifest,) = documents("rayjob")
    mistyped = 0
    for place in _places(manifest):
        if free & set(place[:-1]):
            continue
        broken = deepcopy(manifest)
        table = broken
        for part in place[:-1]:
            table = table[part]
        table[f"{place[-1]}x"] = table.pop(place[-1])
        assert not validator.is_valid(broken), place
        mistyped += 1
    assert mistyped > 100


@pytest.mark.parametrize("name", CLUSTERS)
def test_options_of_ray_start_are_those_that_ray_has(name: str) -> None:
    known = {flag.removeprefix("--") for option in start.params for flag in option.opts}
    for group in groups(name):
        assert group["rayStartParams"].keys() <= known


@pytest.mark.parametrize("name", CLUSTERS)
def test_versions_are_those_of_the_image(name: str) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "docker" / "pins.txt").read_text().split())
    assert cluster_spec(name)["rayVersion"] == pinned["ray"]
    released = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert released
    images = {each["image"] for group in groups(name) for each in group["template"]["spec"]["containers"]}
    assert images == {f"softcask-engine:{released[1]}"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_asks_for_a_token_and_is_not_published(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in spec["headGroupSpec"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_does_no_work_and_workers_come_when_there_is_some(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["enableInTreeAutoscaling"] is True
    head, *workers = groups(name)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert all(each["minReplicas"] == each["replicas"] == 0 < each["maxReplicas"] for each in workers)
    spot = workers[0]["template"]["spec"]
    assert spot["nodeSelector"].keys() <= {each["key"] for each in spot["tolerations"]}


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_pod_is_bounded_and_unprivileged(name: str) -> None:
    for group in groups(name):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsUser"] == 1000  # as docker/engine.Dockerfile has it
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_job_ends_its_cluster_and_is_tried_again() -> None:
    (job,) = documents("rayjob")
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["backoffLimit"] > 0 and job["spec"]["activeDeadlineSeconds"] > 0


def test_the_command_is_one_that_the_submitters_shell_leaves_whole() -> None:
    (job,) = documents("rayjob")
    command = job["spec"]["entrypoint"]
    assert re.fullmatch(r"[\w./=-]+( [\w./=-]+)*", command)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert f"executor.workers={group['maxReplicas']} " in command  # a GPU each


def test_no_manifest_holds_a_secret() -> None:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            assert list(secrets_in(document)) == []
            assert not [each for each in _tables(document) if "value" in each and "name" in each]


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _tables(each)
    elif isinstance(value, list):
        for each in value:
            yield from _tables(each)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*place, key)
            yield from _places(each, (*place, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _places(each, (*place, index))
