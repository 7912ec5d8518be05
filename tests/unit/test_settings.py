"""Settings, their secrets, and logging."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.settings import (
    COMPONENTS,
    HIDDEN,
    SERVICES,
    ApiSettings,
    DashboardSettings,
    Settings,
    SettingsError,
    SetupSettings,
    UnknownSettingError,
    WorkerSettings,
    check_variables,
    show_variables,
    without_secrets,
)
from nomnom.settings.__main__ import document
from nomnom.settings.tokens import digest_of, first_token, read_tokens
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
        SetupSettings.from_environment({name: value})
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def test_empty_variable_means_default() -> None:
    assert Settings.from_environment({"NATS_STREAM": "", "LOG_LEVEL": "debug"}) == Settings(log_level="debug")
    assert Settings.from_environment({"NATS_STREAM": "OTHER", "NATS_CONSUMER": "w"}).streams.stream == "OTHER"


@pytest.mark.parametrize("wrong", [{"LOG_LEVEL": "loud"}, {"LOG_FORMAT": "xml"}])
def test_logs_of_an_unknown_kind_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Settings.from_environment(wrong)


def test_the_level_of_the_log_may_be_in_upper_case() -> None:
    assert Settings.from_environment({"LOG_LEVEL": "DEBUG"}).log_level == "DEBUG"


def test_the_documentation_is_that_of_the_declarations() -> None:
    file = Path(__file__).parents[2] / "docs" / "settings.md"
    assert file.read_text() == document(), "run: python -m nomnom.settings > docs/settings.md"


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_setting_is_described_and_has_a_default_that_it_accepts(component: str) -> None:
    for name, setting in COMPONENTS[component].declared().items():
        assert name == name.upper()
        assert setting.meaning[0].isupper()
        assert not setting.meaning.endswith(".")
        text = setting.default_text
        if text:
            assert setting.read(text) == setting.default
            assert not setting.differs(text)
            assert not setting.holds_secret(text)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_number_is_limited_and_infinity_is_refused(component: str) -> None:
    for setting in COMPONENTS[component].declared().values():
        if "number" in setting.expected:
            for wrong in ("inf", "nan", "-1", "", "1e300", SECRET):
                with pytest.raises(SettingsError, match=setting.name) as caught:
                    setting.read(wrong)
                assert SECRET not in str(caught.value)


def test_an_unknown_name_is_refused_with_the_closest_one() -> None:
    with pytest.raises(UnknownSettingError, match="did you mean MAX_DELIVER"):
        WorkerSettings.find("MAX_DELIVR")
    with pytest.raises(UnknownSettingError, match="did you mean BATCH_SIZE"):
        WorkerSettings.find("batch_size")
    with pytest.raises(UnknownSettingError, match="known settings: NATS_URL"):
        WorkerSettings.find("QQQQQ")
    assert WorkerSettings.find("MAX_DELIVER").default == 3


@pytest.mark.parametrize(
    ("component", "variables"),
    [
        ("api", {"NOMNOM_API_TOKENS": "short"}),
        ("dashboard", {"NOMNOM_DASHBOARD_TOKENS": "short"}),
        ("dashboard", {"NOMNOM_DASHBOARD_USER": "ann"}),
        ("dashboard", {"NOMNOM_DASHBOARD_PASSWORD": SECRET}),
        ("dashboard", {"NOMNOM_DASHBOARD_AUTH_REQUIRED": "true"}),
        ("dashboard", {"NOMNOM_DASHBOARD_AUTH_REQUIRED": "perhaps"}),
        ("setup", {"DATABASE_WORKER_URL": "postgresql://db/nomnom"}),
        ("setup", {"DATABASE_WORKER_URL": f"postgresql://:{SECRET}@db/nomnom"}),
        ("worker", {"NATS_STREAM": "a.b"}),
        ("worker", {"NATS_CONSUMER": "a b"}),
    ],
)
def test_what_needs_more_than_a_type_is_checked_without_the_service(component: str, variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(variables))) as caught:
        check_variables(component, variables)
    assert SECRET not in str(caught.value)


def test_what_depends_on_a_hidden_value_is_not_checked() -> None:
    required = {"NOMNOM_DASHBOARD_AUTH_REQUIRED": "true"}
    check_variables("dashboard", required, hidden={"NOMNOM_DASHBOARD_TOKENS"})
    with pytest.raises(SettingsError):
        check_variables("dashboard", required, hidden={"DATABASE_URL"})
    with pytest.raises(SettingsError):
        check_variables("dashboard", {"NOMNOM_DASHBOARD_INTERVAL_MS": "1"}, hidden={"NOMNOM_DASHBOARD_TOKENS"})


def test_secrets_are_hidden_wherever_variables_are_shown() -> None:
    variables = {
        "NOMNOM_API_TOKENS": SECRET,
        "DATABASE_URL": f"postgresql://me:{SECRET}@db/x",
        "NATS_URL": "nats://nats:4222",
        "LOG_LEVEL": "debug",
        "SOMEONES_KEY": SECRET,
    }
    shown = show_variables("api", variables)
    assert SECRET not in str(shown)
    assert shown["LOG_LEVEL"] == "debug"
    assert shown["NATS_URL"] == "nats://nats:4222"
    assert shown["DATABASE_URL"] == "postgresql://me:***@db/x"
    assert shown["NOMNOM_API_TOKENS"] == shown["SOMEONES_KEY"] == HIDDEN
    assert ApiSettings.find("NOMNOM_API_TOKENS").show("") == ""
    secret = {name for each in SERVICES.values() for name, setting in each.declared().items() if setting.secret}
    assert all(name in secret for name in DashboardSettings.declared() if re.search("TOKEN|PASSWORD|_URL$", name))


def test_the_first_token_is_one_that_the_api_takes() -> None:
    for text in (
        "shop:first-secret,other-secret",
        "till.1:third:secret",
        " plain-secret ,x:another-one",
        ",,a:long-enough",
    ):
        first = first_token(text)
        assert first is not None
        assert digest_of(first.encode()) == read_tokens(text)[0].digest
    assert first_token("till.1:third:secret") == "third:secret"
    assert first_token("") is None


def test_settings_that_the_program_reads_by_itself_are_declared() -> None:
    """Where starting fast matters, a variable is read without the declaration: the name has to be in it."""
    root = Path(__file__).parents[2]
    texts = [each.read_text() for room in ("cli", "tui", "control") for each in (root / room).rglob("*.py")]
    names = {name for text in texts for name in re.findall(r'environ\.get\("(NOMNOM_\w+)"', text)}
    declared = {name for each in COMPONENTS.values() for name in each.declared()}
    assert names
    assert names <= declared


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
