from __future__ import annotations

import pytest

from softcask.pipeline.config.credentials import secrets_in


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "PASSWORD", "secret", "client-secret", "token", "hf_token", "sessionToken",
        "access_key", "aws_access_key_id", "aws_secret_access_key", "apikey", "api_key", "account_key",
        "credentials", "github_token", "vault-token", "AWS_SESSION_TOKEN", "connectionString", "pwd",
        "private_key", "sas_token", "service_account_key", "OPENAI_API_KEY", "secretAccessKey",
        "storage.account_key",
    ],
)  # fmt: skip
def test_a_key_named_like_a_secret_is_found_wherever_it_stands(key: str) -> None:
    raw = {"teachers": [{}, {"kwargs": {key: "hunter2"}}]}
    ((place, message),) = secrets_in(raw)
    assert place == ("teachers", 1, "kwargs", key)
    assert "hunter2" not in message and "environment" in message


@pytest.mark.parametrize(
    "key",
    ["tokenizer", "pad_token", "num_tokens", "key", "inputs_key", "secretary", "keyboard",
     "image_token", "eos_token", "token_file", "service_account", "public_key", "basic"],
)  # fmt: skip
def test_other_keys_are_let_alone(key: str) -> None:
    assert not list(secrets_in({"a": {key: "b"}, "token": 3, "password": {}}))


def test_a_secret_in_a_list_or_as_a_number_is_found_too() -> None:
    assert [place for place, _ in secrets_in({"secrets": ["a"], "kwargs": {"password": 1234}})] == [
        ("secrets",),
        ("kwargs", "password"),
    ]
    assert [place for place, _ in secrets_in({"credentials": {"api_key": "a"}})] == [
        ("credentials", "api_key")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "https://bucket.s3.amazonaws.com/x.npy?X-Amz-Algorithm=AWS4&X-Amz-Signature=0af3",
        "https://storage.googleapis.com/b/x?X-Goog-Credential=me&x-goog-signature=ab",
        "https://account.blob.core.windows.net/c/x?sv=2022&sig=abc%3D",
        "https://host/x?page=2&access_token=abc",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==;",
        "AKIAIOSFODNN7EXAMPLE",
        "hf_" + "aB3" * 12,
        "ghp_" + "0" * 36,
        "https://github_pat_" + "a1" * 20 + "@github.com/me/models",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc",
    ],
)
def test_a_value_that_looks_like_a_credential_is_found_under_any_key(text: str) -> None:
    ((place, message),) = secrets_in({"teachers": [{"kwargs": {"source": text}}]})
    assert place == ("teachers", 0, "kwargs", "source")
    assert text not in message and "environment" in message


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
        "https://host/rows.parquet?versionId=3&design=flat",
        "models/task-" + "a" * 40,
        "mixture=.5; passwordless",
    ],
)
def test_other_texts_are_let_alone(text: str) -> None:
    assert not list(secrets_in({"uri": text}))
