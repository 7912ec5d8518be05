"""Components of the API that need no server."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from nomnom.envelope import from_microseconds, headers, new_message_id
from nomnom.schema import built_in_schemas, load_schema
from nomnom.settings import ApiSettings, SettingsError
from nomnom.settings.tokens import read_tokens
from nomnom_api.__main__ import main
from nomnom_api.access import ANONYMOUS, Access
from nomnom_api.batch_answers import BatchAnswer
from nomnom_api.errors import (
    ERRORS,
    ApiError,
    InvalidBodyError,
    NotSentError,
    StreamFullError,
    UnauthorizedError,
    UnconfirmedError,
)
from nomnom_api.identities import Clock, timestamp
from nomnom_api.openapi import document
from nomnom_api.operations import OPERATIONS
from nomnom_api.publisher import HEADER_SIZE


@pytest.fixture
def kept_logging() -> Iterator[None]:
    """Restore the logging configuration of the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_clock_is_strictly_increasing() -> None:
    clock = Clock()
    times = [clock.now() for _ in range(10_000)]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


@given(st.integers(0, 4_102_444_800_000_000))
def test_timestamps_are_exact(microseconds: int) -> None:
    assert timestamp(microseconds) == from_microseconds(microseconds).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_header_size_matches_the_wire_format() -> None:
    renewed = f"{new_message_id()}.{new_message_id()}"
    wire = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers(Clock().now(), renewed).items())
    assert len(wire + "\r\n") == HEADER_SIZE, "those of the largest message: one with a key that is published again"


def test_tokens_identify_callers() -> None:
    access = Access(read_tokens("shop:first-secret, second-secret,, till.1:third:secret"))
    assert access.caller(b"Bearer first-secret") == "shop"
    assert access.caller(b"bearer  third:secret ") == "till.1"
    unnamed = access.caller(b"Bearer second-secret")
    assert unnamed.startswith("token:")
    assert "second" not in unnamed
    for header in (None, b"", b"Bearer", b"Bearer x", b"Basic first-secret", b"Bearer shop:first-secret", b"\xff\xfe"):
        with pytest.raises(UnauthorizedError):
            access.caller(header)
    assert Access(()).caller(b"Bearer anything") == ANONYMOUS
    assert "secret" not in repr(read_tokens("shop:first-secret"))


@pytest.mark.parametrize(
    "text",
    [
        "short",
        "a:short",
        "a b:long-enough",
        ":long-enough",
        "a:long enough",
        "a:b-secret-1,a:b-secret-2",
        "long\u00e4enough",
    ],
)
def test_invalid_tokens_are_rejected_without_repeating_them(text: str) -> None:
    with pytest.raises(SettingsError, match="NOMNOM_API_TOKENS") as caught:
        ApiSettings.from_environment({"NOMNOM_API_TOKENS": text})
    assert text not in str(caught.value)


def answer(failed: dict[int, ApiError], unread: tuple[int, ApiError] | None = None) -> BatchAnswer:
    return BatchAnswer(
        count=0, duplicates=0, first_id="", last_id="", numbers=None, ids=bytearray(), failed=failed, unread=unread
    )


def test_consecutive_lines_with_the_same_error_are_one_problem() -> None:
    bad = {line: InvalidBodyError("not UTF-8") for line in (9, 2, 3, 4, 7)}
    problems = answer({**bad, 8: InvalidBodyError("empty")}, (20, StreamFullError("full"))).problems()
    assert [(each.line, each.last_line, each.code, each.detail) for each in problems] == [
        (2, 4, "invalid_body", "not UTF-8"),
        (7, 7, "invalid_body", "not UTF-8"),
        (8, 8, "invalid_body", "empty"),
        (9, 9, "invalid_body", "not UTF-8"),
        (20, None, "stream_full", "full"),
    ]


def test_error_shared_by_all_lines() -> None:
    unconfirmed, full = UnconfirmedError("no ack"), StreamFullError("full")
    assert answer({1: unconfirmed, 2: UnconfirmedError("lost")}).common_error() is unconfirmed
    assert answer({1: unconfirmed}, (2, NotSentError("not sent"))).common_error() is unconfirmed
    assert answer({1: unconfirmed}, (2, full)).common_error() is None
    assert answer({}, (1, full)).common_error() is full


def test_problem_types_are_unique() -> None:
    assert len({each.code for each in ERRORS}) == len(ERRORS)
    assert {each.status for each in ERRORS if each.retry_after is not None} == {503}
    assert all(each.retry_after is not None for each in ERRORS if each.status == 503)


@pytest.mark.parametrize("name", built_in_schemas())
def test_openapi_document_is_valid(name: str) -> None:
    settings = ApiSettings(nomnom_api_tokens="first-secret", nomnom_api_max_body=12_345)
    openapi = document(OPERATIONS, settings, load_schema(name))
    validate(openapi)
    assert "12,345" in openapi["paths"]["/api/ingest/message"]["post"]["requestBody"]["description"]
    assert "first-secret" not in str(openapi)
    described = {
        (method.upper(), path): operation.get("security") == [{}]
        for path, item in openapi["paths"].items()
        for method, operation in item.items()
    }
    assert described == {(each.method, each.path): each.open for each in OPERATIONS if each.description is not None}
    documented = {
        example
        for item in openapi["paths"].values()
        for operation in item.values()
        for answered in operation["responses"].values()
        for example in answered["content"].get("application/problem+json", {}).get("examples", {})
    }
    # Not documented as responses: wrong methods, and errors of single lines.
    assert documented == {each.code for each in ERRORS} - {"method_not_allowed", "not_sent"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOMNOM_API_TOKENS", "short"),
        ("NOMNOM_API_TOKENS", "a:long-enough-1,a:long-enough-2"),
        ("NOMNOM_API_MAX_BODY", "0"),
        ("NOMNOM_API_PORT", "70000"),
        ("NOMNOM_SCHEMA", "no-such-schema"),
        ("LOG_LEVEL", "loud"),
    ],
)
@pytest.mark.usefixtures("kept_logging")
def test_invalid_setting_is_named_in_the_error(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    error = str(ended.value)
    assert error.startswith("nomnom-api: ")
    assert "\n" not in error
    if name == "NOMNOM_API_TOKENS":
        assert all(each not in error for each in value.replace("a:", "").split(","))
