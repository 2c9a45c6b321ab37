"""Keeps secrets out of config files, which are committed, mailed, and copied into logs and stores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from softcask.pipeline.config.places import Place

_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|passphrase|secret|secrets|credential|credentials)$"
    r"|^token$|(^|_)(access|api|auth|aws|bearer|gh|hf|hub|refresh|sas|security|session|wandb)_?token$"
    r"|(^|_)(access|account|api|auth|private|secret|signing)_?(access_?)?key(_id)?$"
)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:(?!\d+(/|$))[^\s@]+@")
_ADVICE = "keep it in the environment or in a profile of the cloud's own tools, and take it out here"


def secrets_in(raw: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Places in a raw config that seem to hold a secret, and what to do about each; never the secret."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if isinstance(value, str) and _names_secret(key):
                yield (*place, key), f"looks like a secret: {_ADVICE}"
            else:
                yield from secrets_in(value, (*place, key))
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from secrets_in(value, (*place, index))
    elif isinstance(raw, str) and holds_password(raw):
        yield place, f"a URL with a password in it: {_ADVICE}"


def holds_password(address: str) -> bool:
    """Whether a path or URL has a password in it: after a colon that begins no port, and before an @."""
    return _PASSWORD_IN_URL.search(address) is not None


def _names_secret(key: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").replace(".", "_")
    return _SECRET_KEY.search(snake.lower()) is not None
