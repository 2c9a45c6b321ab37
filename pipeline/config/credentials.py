"""Keeps secrets out of config files, which are committed, mailed, and copied into logs, jobs and stores.

A key tells by its name, a value by what it looks like. Tokens of a tokenizer (`pad_token = "<pad>"`) have the
names of secrets and are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from softcask.pipeline.config.places import Place

_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|passphrase|passcode|pwd|secret|secrets|credential|credentials)$"
    r"|(^|_)(authorization|bearer|connection_?string|sas|service_?account_?(json|key))$"
    r"|^token$|(^|_)(access|api|auth|aws|bearer|gh|github|gitlab|hf|hub|id|refresh|sas|security|session|slack"
    r"|vault|wandb)_?token$"
    r"|(^|_)(access|account|api|auth|encryption|private|secret|signing|ssh)_?(access_?)?key(_id)?$"
)
_PASSWORD_KEY = re.compile(r"(^|_)(password|passwd|passphrase|passcode|pwd)$")
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:(?!\d+(/|$))[^\s@]+@")
_SIGNED_URL = re.compile(
    r"[?&;](x-(amz|goog)-(signature|credential|security-token)|sig|signature|awsaccesskeyid"
    r"|[\w-]*(token|password|secret|api[_-]?key))=[^&\s]",
    re.IGNORECASE,
)
_IN_CONNECTION = re.compile(
    r"(^|;)\s*(accountkey|sharedaccesskey|sharedaccesssignature|password|pwd)\s*=[^;\s]", re.IGNORECASE
)
_KNOWN_TOKEN = re.compile(
    r"\b(A(KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{30,}|hf_[A-Za-z0-9]{30,}|gh[opsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
    r"|glpat-[\w-]{20,}|xox[abpr]-[\w-]{20,}|sk-(ant-|proj-)?\w{32,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_ADVICE = "keep it in the environment or in a profile of the cloud's own tools, and take it out here"


def secrets_in(raw: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Places in a raw config that seem to hold a secret, and what to do about each; never the secret."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if _is_secret(key, value):
                yield (*place, key), f"looks like a secret: {_ADVICE}"
            else:
                yield from secrets_in(value, (*place, key))
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from secrets_in(value, (*place, index))
    elif isinstance(raw, str) and holds_password(raw):
        yield place, f"a URL with a password in it: {_ADVICE}"
    elif isinstance(raw, str) and holds_credentials(raw):
        yield place, f"holds what looks like a credential: {_ADVICE}"


def holds_password(address: str) -> bool:
    """Whether a path or URL has a password in it: after a colon that begins no port, and before an @."""
    return _PASSWORD_IN_URL.search(address) is not None


def holds_credentials(text: str) -> bool:
    """Whether a text has a password or signature in a URL, or a token of a well-known form, in it."""
    looked_for = (_PASSWORD_IN_URL, _SIGNED_URL, _IN_CONNECTION, _KNOWN_TOKEN)
    return any(pattern.search(text) for pattern in looked_for)


def names_secret(key: str) -> bool:
    """Whether a key or a variable is called as secrets are: `hf_token`, `AWS_SECRET_ACCESS_KEY`, `apiKey`."""
    return _SECRET_KEY.search(_snake(key)) is not None


def _is_secret(key: str, value: Any) -> bool:
    if isinstance(value, (str, list)):
        return names_secret(key) and (isinstance(value, str) or any(isinstance(each, str) for each in value))
    # A token may well be a number, which is no secret; a password is one.
    return type(value) is int and _PASSWORD_KEY.search(_snake(key)) is not None


def _snake(key: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").replace(".", "_")
    return snake.lower()
