"""What a driver's error says: drivers are optional and raise what they like, so they are known by name.

s3fs hands botocore's `ClientError` on as the cause of an `OSError`; gcsfs, aiohttp and botocore's own network
errors have neither a common base nor a common place for the server's answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_PASSING_CODES = {
    "ConditionalRequestConflict",  # another writer of the name was under way: S3 asks to try again
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "XAmzContentSHA256Mismatch",
}
_ANSWERING_TYPES = {"aiohttp.client_exceptions.ClientResponseError", "gcsfs.retry.HttpError"}
_PASSING_TYPES = {
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "botocore.exceptions.ConnectionClosedError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.FlexibleChecksumError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.exceptions.ReadTimeoutError",
    "botocore.exceptions.ResponseStreamingError",
    "botocore.parsers.ResponseParserError",
    "builtins.ConnectionError",
    "builtins.TimeoutError",
}
_NEVER_PASSING_TYPES = {
    "aiohttp.client_exceptions.ClientSSLError",
    "botocore.exceptions.SSLError",
}
_NO_CREDENTIALS_TYPES = {
    "botocore.exceptions.CredentialRetrievalError",
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "botocore.exceptions.ProfileNotFound",
    "botocore.exceptions.SSOError",
    "botocore.exceptions.TokenRetrievalError",
    "botocore.exceptions.UnauthorizedSSOTokenError",
    "google.auth.exceptions.GoogleAuthError",
}
_REFUSED_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_OTHER_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "301",
}
_USER_INFORMATION = re.compile(r"(?<=://)[^@\s]+@")
_SECRET_NAME = re.compile(r"(AWS|FSSPEC|GOOGLE|GCS)_.*(SECRET|TOKEN|PASSWORD)", re.IGNORECASE)
_SECRET_OPTION = re.compile(r'"(?:secret|token|password)"\s*:\s*"([^"]+)"')
_SHORTEST_SECRET = 8
"""Shorter ones are a test server's, and stand in many a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered, as far as an error tells.

    Attributes:
        code: The server's word for it ("SlowDown"); "" where there is none.
        status: HTTP status; 0 where no server answered.
    """

    code: str = ""
    status: int = 0

    def __str__(self) -> str:
        """As people name it: "503 SlowDown"."""
        return f"{self.status or ''} {self.code if self.code != str(self.status) else ''}".strip()


def answer_of(error: BaseException) -> Answer:
    """The server's answer that an error, or what caused it, carries."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return Answer(code=str(response.get("Error", {}).get("Code", "")), status=int(status))
        if _names(cause) & _ANSWERING_TYPES:
            status = str(getattr(cause, "status", None) or getattr(cause, "code", None))
            return Answer(status=int(status) if status.isdigit() else 0)
    return Answer()


def says_taken(error: BaseException) -> bool:
    """Whether a conditional create failed because the name is taken."""
    answer = answer_of(error)
    exists = any(isinstance(cause, FileExistsError) for cause in _causes(error))
    return exists or answer.status == 412 or answer.code in ("PreconditionFailed", "412")


def says_past_the_end(error: BaseException) -> bool:
    """Whether a range was refused because the object ends before it: an empty object has no first byte."""
    answer = answer_of(error)
    return answer.status == 416 or answer.code in ("InvalidRange", "416")


def says_no_bucket(error: BaseException) -> bool:
    """Whether it is not the object but the whole bucket that is not there."""
    return answer_of(error).code == "NoSuchBucket"


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed if made again: the network, a timeout, a server in trouble."""
    answer, types = answer_of(error), _types(error)
    if types & _NEVER_PASSING_TYPES or answer.code in _REFUSED_CREDENTIALS:
        return False
    if answer.status or answer.code:
        return answer.status in _PASSING_STATUS or answer.code in _PASSING_CODES
    return bool(types & _PASSING_TYPES)


def advice(error: BaseException) -> str:
    """What to do about an error of an object store; "" where nothing is known."""
    answer, types = answer_of(error), _types(error)
    if says_no_bucket(error):
        return "There is no such bucket. Make it, or check its name, AWS_ENDPOINT_URL and the region."
    if types & _NO_CREDENTIALS_TYPES or answer.code in _REFUSED_CREDENTIALS:
        return (
            "Give credentials that hold by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), by "
            "AWS_PROFILE, or by the machine's role."
        )
    if answer.status == 403 or answer.code in ("AccessDenied", "403"):
        return (
            "Check that these credentials may get, put, delete and list objects there; without the "
            "permission to list, S3 refuses to say that an object is not there."
        )
    if answer.code in _OTHER_REGION or answer.status == 301:
        return "The bucket lies elsewhere. Set AWS_DEFAULT_REGION or AWS_ENDPOINT_URL to where it is."
    if may_pass(error) and not answer.status:
        return "Check the network and AWS_ENDPOINT_URL. What was committed is safe; run the command again."
    if may_pass(error):
        return "The server is in trouble. What was committed is safe; run the command again later."
    return ""


def redacted(text: str) -> str:
    """`text` without what the environment or a URL in it keeps secret."""
    text = _USER_INFORMATION.sub("***@", text)
    for secret in _secrets():
        text = text.replace(secret, "***")
    return text


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_NAME.match(name) and len(value) >= _SHORTEST_SECRET:
            yield value
        if name.startswith("FSSPEC_"):  # options of a filesystem, as JSON
            yield from _SECRET_OPTION.findall(value)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _types(error: BaseException) -> set[str]:
    return {name for cause in _causes(error) for name in _names(cause)}


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
