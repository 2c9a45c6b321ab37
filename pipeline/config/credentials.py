"""Keeps secrets out of config files, which are committed, mailed, and copied into logs, jobs and stores.

A key tells by its name, a value by what it looks like. Tokens of a tokenizer (`pad_token = "<pad>"`) have the
names of secrets and are none.
"""

from __future__ import annotations

import os
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
_STATED = re.compile(r"""([A-Za-z][\w.-]*)["']?\s*[=:]\s*(?:(?:Bearer|Basic)\s+)?["']?""")
_VALUE = re.compile(r"""[^\s"',;&)}\]]+""")
_SIGNATURE = re.compile(r"(?i)x-(amz|goog)-(signature|credential|security-token)|sig|signature|cookie")
_HIDDEN = "***"
_FOLDERS = ("PWD", "OLDPWD")
_SHORTEST = 6
"""Characters of a variable's value; to take out shorter ones would spoil texts."""
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


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text for logs and stores, without what looks like a secret.

    Taken out are passwords in URLs, values behind names of secrets, signatures of signed URLs, tokens of a
    well-known form, and whatever an environment variable that is called like a secret holds.

    Args:
        text: Anything, an error's message say.
        environment: Variables whose values may stand in it; None: this process's.
    """
    variables = os.environ if environment is None else environment
    called = (name for name in variables if names_secret(name) and name not in _FOLDERS)
    known = {variables[name] for name in called if len(variables[name]) >= _SHORTEST}
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    text = _PASSWORD_IN_URL.sub(f"://{_HIDDEN}@", text)
    return _KNOWN_TOKEN.sub(_HIDDEN, _without_stated(text))


def names_secret(key: str) -> bool:
    """Whether a key or a variable is called as secrets are: `hf_token`, `AWS_SECRET_ACCESS_KEY`, `apiKey`."""
    return _SECRET_KEY.search(_snake(key)) is not None


def _hides(key: str) -> bool:
    return _SIGNATURE.fullmatch(key) is not None or names_secret(key)


def _without_stated(text: str) -> str:
    """Without values that stand behind names of secrets; what one name states may itself state another."""
    parts, at = [], 0
    for stated in _STATED.finditer(text):
        value = _VALUE.match(text, stated.end())
        if value is not None and stated.start() >= at and _hides(stated[1]):
            parts += [text[at : stated.end()], _HIDDEN]
            at = value.end()
    return "".join([*parts, text[at:]])


def _is_secret(key: str, value: Any) -> bool:
    if isinstance(value, (str, list)):
        return names_secret(key) and (isinstance(value, str) or any(isinstance(each, str) for each in value))
    # A token may well be a number, which is no secret; a password is one.
    return type(value) is int and _PASSWORD_KEY.search(_snake(key)) is not None


def _snake(key: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").replace(".", "_")
    return snake.lower()
