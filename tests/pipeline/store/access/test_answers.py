from __future__ import annotations

from typing import Any

import pytest

from softcask.pipeline.store.access.answers import advice, answer_of, may_pass, redacted, says_taken

botocore = pytest.importorskip("botocore.exceptions", reason="s3fs is not installed: pip install -e '.[dev]'")
aiohttp = pytest.importorskip("aiohttp", reason="s3fs is not installed: pip install -e '.[dev]'")
URL = "https://bucket.s3.example/cask"


def s3_says(code: str, status: int) -> Exception:
    """As s3fs raises it: an OSError, because of botocore's error."""
    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError("m")
    error.__cause__ = botocore.ClientError(answer, "GetObject")
    return error


def http_says(status: int) -> Exception:
    error: Exception = aiohttp.ClientResponseError(None, (), status=status)
    return error


PASSING = [
    s3_says("InternalError", 500),
    s3_says("SlowDown", 503),
    s3_says("ServiceUnavailable", 503),
    s3_says("", 502),
    s3_says("RequestTimeout", 400),
    s3_says("ConditionalRequestConflict", 409),
    s3_says("TooManyRequests", 429),
    http_says(500),
    http_says(503),
    botocore.EndpointConnectionError(endpoint_url=URL),
    botocore.ConnectTimeoutError(endpoint_url=URL),
    botocore.ReadTimeoutError(endpoint_url=URL),
    botocore.ConnectionClosedError(endpoint_url=URL),
    botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    botocore.FlexibleChecksumError(error_msg="m"),
    aiohttp.ClientPayloadError(),
    aiohttp.ServerDisconnectedError(),
    ConnectionResetError(),
    TimeoutError(),
]
NOT_PASSING = [
    s3_says("AccessDenied", 403),
    s3_says("NoSuchKey", 404),
    s3_says("NoSuchBucket", 404),
    s3_says("PreconditionFailed", 412),
    s3_says("InvalidRange", 416),
    s3_says("ExpiredToken", 400),
    s3_says("InvalidAccessKeyId", 403),
    s3_says("SignatureDoesNotMatch", 403),
    s3_says("PermanentRedirect", 301),
    s3_says("NotImplemented", 501),
    http_says(403),
    http_says(404),
    botocore.SSLError(endpoint_url=URL, error="certificate verify failed"),
    botocore.NoCredentialsError(),
    botocore.ProfileNotFound(profile="lab"),
    botocore.HTTPClientError(error="a fault of the program"),
    FileNotFoundError(),
    PermissionError(),
    OSError(5, "no answer of a server"),
    ValueError(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_trouble_of_the_moment_may_pass(error: Exception) -> None:
    assert may_pass(error)
    assert "run the command again" in advice(error)


@pytest.mark.parametrize("error", NOT_PASSING, ids=repr)
def test_a_refusal_does_not_pass(error: Exception) -> None:
    assert not may_pass(error)
    assert "run the command again" not in advice(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (s3_says("NoSuchBucket", 404), "no such bucket"),
        (s3_says("AccessDenied", 403), "may get, put, delete and list"),
        (http_says(403), "may get, put, delete and list"),
        (s3_says("ExpiredToken", 400), "AWS_PROFILE"),
        (botocore.NoCredentialsError(), "AWS_PROFILE"),
        (botocore.ProfileNotFound(profile="lab"), "AWS_PROFILE"),
        (s3_says("PermanentRedirect", 301), "AWS_DEFAULT_REGION"),
        (botocore.EndpointConnectionError(endpoint_url=URL), "AWS_ENDPOINT_URL"),
        (s3_says("SlowDown", 503), "in trouble"),
    ],
    ids=repr,
)
def test_advice_fits_what_was_answered(error: Exception, said: str) -> None:
    assert said in advice(error)


def test_nothing_is_advised_where_nothing_is_known() -> None:
    assert advice(ValueError()) == advice(s3_says("NotImplemented", 501)) == ""


@pytest.mark.parametrize(
    ("error", "taken"),
    [
        (FileExistsError(), True),
        (s3_says("PreconditionFailed", 412), True),
        (http_says(412), True),
        (s3_says("ConditionalRequestConflict", 409), False),
        (s3_says("BucketNotEmpty", 409), False),
        (OSError(), False),
    ],
    ids=repr,
)
def test_a_name_is_taken_where_the_server_says_so(error: Exception, taken: bool) -> None:
    assert says_taken(error) is taken


def test_an_answer_reads_as_people_name_it() -> None:
    named = [
        str(answer_of(error)) for error in (s3_says("SlowDown", 503), s3_says("403", 403), http_says(404))
    ]
    assert named == ["503 SlowDown", "403", "404"]
    assert str(answer_of(ValueError())) == ""


def test_an_error_that_is_its_own_cause_comes_to_an_end() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert not may_pass(first)


def test_a_driver_that_codes_its_errors_by_words_is_no_trouble() -> None:
    kind: Any = type("HttpError", (Exception,), {"__module__": "gcsfs.retry", "code": "backendError"})
    assert answer_of(kind()).status == 0
    kind.code = "503"
    assert may_pass(kind())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI"),
        ("AWS_SESSION_TOKEN", "FwoGZXIvYXdz"),
        ("FSSPEC_S3_SECRET", "wJalr/XUtn+FEMI"),
        ("FSSPEC_S3", '{"key": "AKIA", "secret": "wJalr/XUtn+FEMI"}'),
    ],
)
def test_secrets_of_the_environment_are_blotted_out(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    value = value.removeprefix('{"key": "AKIA", "secret": "').removesuffix('"}')
    assert redacted(f"denied {value}, sorry") == "denied ***, sorry"


def test_passwords_in_addresses_are_blotted_out_and_addresses_stay() -> None:
    told = "cannot reach http://me:hunter/2@host:9000/x of s3://bucket/cask; mail me@home"
    assert redacted(told) == "cannot reach http://***@host:9000/x of s3://bucket/cask; mail me@home"
