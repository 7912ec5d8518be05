"""Settings, their secrets, and logging."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.settings import Settings, SettingsError, without_secrets
from nomnom.telemetry import configure_logging, logger

SECRET = "s3cr3t-word"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        (f"nats://worker:{SECRET}@nats:4222", "nats://worker:***@nats:4222"),
        (f"nats://{SECRET}@nats:4222", "nats://***@nats:4222"),
        (f"tls://{SECRET}@nats:4222", "tls://***@nats:4222"),
        (f"nats://a:{SECRET}@one:4222,nats://b:{SECRET}@two:4222", "nats://a:***@one:4222,nats://b:***@two:4222"),
        (
            f"postgresql://me:{SECRET}@[::1]:5432/db?sslmode=require",
            "postgresql://me:***@[::1]:5432/db?sslmode=require",
        ),
        ("postgresql://me@db/nomnom", "postgresql://me@db/nomnom"),
        (f"postgresql://me:{SECRET}@/db?host=/run/postgresql", "postgresql://me:***@/db?host=/run/postgresql"),
        (f"postgresql:///db?user=me&password={SECRET}&port=1", "postgresql:///db?user=me&password=***&port=1"),
        (f"postgresql://me:{SECRET}@@db/x", "postgresql://me:***@db/x"),
        ("", ""),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters=",?", exclude_categories=("Cc",)), min_size=5))
def test_passwords_are_never_shown(password: str) -> None:
    url = f"nats://someone:{password}QQQ@host:4222"
    assert password + "QQQ" not in without_secrets(url)


@pytest.mark.parametrize(
    ("name", "value"), [("NATS_REPLICAS", "0"), ("NATS_REPLICAS", "many"), ("NATS_REPLICAS", SECRET)]
)
def test_invalid_setting_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def test_empty_variable_means_default() -> None:
    assert Settings.from_environment({"NATS_STREAM": "", "LOG_LEVEL": "debug"}) == Settings(log_level="debug")
    assert Settings.from_environment({"NATS_STREAM": "OTHER", "NATS_CONSUMER": "w"}).streams.stream == "OTHER"


@pytest.mark.parametrize("settings", [Settings(log_level="loud"), Settings(log_format="xml")])
def test_unknown_log_level_or_format_is_rejected(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="expected"):
        configure_logging("test", settings)


def test_json_log_lines_include_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        configure_logging("worker", Settings(log_format="json"))
        logger("nomnom.test").info("began", count=3)
        try:
            int("wrong")
        except ValueError:
            logging.getLogger("library").exception("failed")
    finally:
        root.handlers[:], root.level = before
    first, second = (json.loads(line) for line in output.getvalue().splitlines())
    assert (first["event"], first["count"], first["component"], first["level"]) == ("began", 3, "worker", "info")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("failed", "error")
    assert "Traceback" in second["exception"]
    assert "ValueError: invalid literal" in second["exception"]
