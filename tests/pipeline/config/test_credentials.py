from __future__ import annotations

import pytest

from softcask.pipeline.config.credentials import secrets_in


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "PASSWORD", "secret", "client-secret", "token", "hf_token", "sessionToken",
        "access_key", "aws_access_key_id", "aws_secret_access_key", "apikey", "api_key", "account_key",
        "credentials",
    ],
)  # fmt: skip
def test_a_key_named_like_a_secret_is_found_wherever_it_stands(key: str) -> None:
    raw = {"teachers": [{}, {"kwargs": {key: "hunter2"}}]}
    ((place, message),) = secrets_in(raw)
    assert place == ("teachers", 1, "kwargs", key)
    assert "hunter2" not in message and "environment" in message


@pytest.mark.parametrize(
    "key", ["tokenizer", "pad_token", "num_tokens", "key", "inputs_key", "secretary", "keyboard"]
)
def test_other_keys_are_let_alone(key: str) -> None:
    assert not list(secrets_in({"a": {key: "b"}, "token": 3, "password": {}}))


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:sec/ret@bucket/x",
        "https://u:p@host:80/x",
        "simplecache::ftp://me:pw@host/",
        "redis://:pw@host",
    ],
)
def test_a_url_with_a_password_is_found(url: str) -> None:
    ((place, message),) = secrets_in({"paths": ["/fine", url]})
    assert place == ("paths", 1)
    assert url not in message


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b",
        "abfs://container@account/x",
        "http://host:8265/a@b",
        "C://x",
        "a:b@c",
        "http://h:80",
    ],
)
def test_other_texts_are_let_alone(text: str) -> None:
    assert not list(secrets_in({"uri": text}))
