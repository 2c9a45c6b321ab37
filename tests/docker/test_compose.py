"""The compose file publishes nothing beyond this machine, and holds no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.scripts.scripts import start

TEXT = (Path(__file__).parents[2] / "docker" / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = ["head", "worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_published_port_is_bound_to_loopback(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_environment(name: str) -> None:
    for key, value in SERVICES[name]["environment"].items():
        if re.search("TOKEN|KEY|PASSWORD|USER", key):
            assert value is None or value.startswith("${"), key


@pytest.mark.parametrize("name", NODES)
def test_nodes_ask_for_a_token_that_must_be_set_and_run_as_the_images_user(name: str) -> None:
    assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert SERVICES[name]["user"] == "1000:1000"


@pytest.mark.parametrize("name", NODES)
def test_nodes_are_started_as_ray_starts_them(name: str) -> None:
    command, subcommand, *flags = SERVICES[name]["command"]
    assert (command, subcommand) == ("ray", "start")
    known = {flag for option in start.params for flag in option.opts}
    assert {flag.partition("=")[0] for flag in flags} <= known


def test_the_head_does_no_work_and_both_nodes_see_the_store() -> None:
    assert "--num-cpus=0" in SERVICES["head"]["command"]
    assert SERVICES["head"]["volumes"] == SERVICES["worker"]["volumes"] == ["store:/store"]


def test_every_image_of_others_is_pinned() -> None:
    images = {service["image"] for service in SERVICES.values()} - {"softcask-engine"}
    assert images and all(re.search(r":(?!latest)[\w.-]+$", image) for image in images)


def test_every_key_is_one_that_compose_knows() -> None:
    known = {
        "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "ports",
        "profiles", "security_opt", "shm_size", "user", "volumes",
    }  # fmt: skip
    assert {key for service in SERVICES.values() for key in service} <= known
    assert COMPOSE.keys() == {"name", "services", "volumes", "x-node"}
