"""The command line without a pipeline: environments, prompts, exit codes, output."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import nomnom
from nomnom.settings import ApiSettings
from nomnom_cli import output, program
from nomnom_cli.application import app
from nomnom_cli.command_line import Exit, main
from nomnom_cli.commands.dlq import Matching
from nomnom_cli.commands.rollouts import read_changes, read_pairs
from nomnom_cli.options import Target, open_environment, state_folder
from nomnom_cli.prompts import Declined, UsageError, confirm
from nomnom_control.environments import EnvironmentTemplate, LogLine, catalog
from nomnom_control.environments.catalog import EnvironmentNotFound
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_control.sending.files import Ingested, Sending, SendingError

_GUIDE = Path(__file__).parents[2] / "docs" / "commands.md"


class Elsewhere(LocalEnvironment):
    """An environment with only a name and logs."""

    kind = "elsewhere"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        levels = ["info", "error", "info", "error", "error", "info"]
        lines = [LogLine("api", "api-0", None, level, f"line {at}") for at, level in enumerate(levels)]
        for each in lines if tail is None else lines[-tail:]:
            yield each
        if follow:
            await asyncio.sleep(0.5)
            yield LogLine("api", "api-0", None, "info", "quiet")
            yield LogLine("api", "api-0", None, "error", "written later")


class Source:
    """A source with one environment."""

    def names(self) -> Sequence[str]:
        return ("far",)

    def find(self, name: str) -> Elsewhere | None:
        return Elsewhere(name) if name == "far" else None

    def listed(self) -> Sequence[Elsewhere]:
        return ()

    def templates(self) -> Sequence[EnvironmentTemplate]:
        return ()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SOURCES", (catalog.LocalEnvironments, Source))


@pytest.fixture(autouse=True)
def consoles() -> Iterator[None]:
    """Create the consoles for the streams of each test."""
    output.results.cache_clear()
    output.errors.cache_clear()
    yield
    output.results.cache_clear()
    output.errors.cache_clear()


def run(*arguments: str) -> Exit:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return Exit(ended.value.code)


class TestEnvironments:
    def test_local_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOMNOM_ENV", raising=False)
        monkeypatch.setenv("NOMNOM_HOME", str(tmp_path / "home"))
        assert open_environment(None).location == str(tmp_path / "home")
        assert open_environment(Target(env="local")).location == str(tmp_path / "home")
        assert open_environment(Target(dir=tmp_path)).location == str(tmp_path)
        assert state_folder(open_environment(Target(dir=tmp_path))) == tmp_path

    def test_environments_come_from_sources(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: None) -> None:
        monkeypatch.setenv("NOMNOM_ENV", "far")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        found = open_environment(None)
        assert found.kind == "elsewhere"
        assert state_folder(found) == tmp_path / "nomnom" / "environments" / "far"
        # The command line overrides the variable.
        assert open_environment(Target(env="local")).kind == "local"
        assert open_environment(Target(dir=tmp_path)).location == str(tmp_path)

    def test_unknown_name_lists_available_environments(self, far: None) -> None:
        with pytest.raises(EnvironmentNotFound, match="no environment 'near'; available: local, far"):
            open_environment(Target(env="near"))
        with pytest.raises(EnvironmentNotFound, match="--dir applies to the local environment only"):
            open_environment(Target(env="far", dir=Path("x")))


class TestLogs:
    @pytest.mark.parametrize(
        ("arguments", "texts"),
        [
            (("-n", "2"), ["line 4", "line 5"]),
            (("-n", "2", "--level", "error"), ["line 3", "line 4"]),
            (("-n", "0", "--level", "error"), []),
            (("-n", "1", "--level", "error", "-f"), ["line 4", "written later"]),
            (("-n", "1", "-f"), ["line 5", "quiet", "written later"]),
        ],
    )
    def test_tail_counts_matching_lines(
        self, far: None, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], texts: list[str]
    ) -> None:
        assert run("logs", "--env", "far", "--json", *arguments) is Exit.OK
        assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == texts


class TestExitCodes:
    @pytest.mark.parametrize(
        "given",
        [
            (("status", "--dir", "{folder}"), Exit.NOT_RUNNING, "no pipeline is running in"),
            (("entities", "--dir", "{folder}"), Exit.NOT_RUNNING, "nomnom: "),
            (("frobnicate",), Exit.USAGE, "Unknown command"),
            (("post",), Exit.USAGE, "requires an argument"),
            (("scale", "-1", "--dir", "{folder}"), Exit.USAGE, "nomnom: "),
            (("scale", "2", "--auto", "--dir", "{folder}"), Exit.USAGE, "exclude each other"),
            (("dlq", "ls", "since:soon", "--dir", "{folder}"), Exit.NOT_RUNNING, "not running"),
            (("destroy", "--dir", "{folder}"), Exit.REFUSED, "not confirmed"),
            (("schema", "check", "{folder}"), Exit.FAILED, "nomnom: "),
        ],
    )
    def test_error_is_one_line_with_an_exit_code(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        given: tuple[tuple[str, ...], Exit, str],
    ) -> None:
        arguments, code, text = given
        monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
        assert run(*(each.format(folder=tmp_path) for each in arguments)) is code
        printed = capsys.readouterr()
        assert text in printed.err
        assert "Traceback" not in printed.err
        assert not printed.out

    def test_help_lists_exit_codes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--help") is Exit.OK
        text = " ".join(capsys.readouterr().out.split())
        assert all(f" {each.value} " in text for each in Exit)


class TestPrompts:
    def test_yes_skips_the_prompt(self) -> None:
        confirm("Purge?", ["all"], yes=True)

    def test_prompt_without_terminal_is_declined(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
        with pytest.raises(Declined, match="--yes"):
            confirm("Purge?", ["12 messages"], yes=False)

    @pytest.mark.parametrize(("answer", "agreed"), [("yes", True), ("y", False), ("", False)])
    def test_only_yes_confirms(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, agreed: bool
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda: answer)
        if agreed:
            confirm("Purge?", ["12 messages"], yes=False)
        else:
            with pytest.raises(Declined, match="nothing was changed"):
                confirm("Purge?", ["12 messages"], yes=False)
        assert "12 messages" in capsys.readouterr().err


class TestOutput:
    def test_json_encodes_bytes_as_text_and_times_as_iso_8601(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Part(msgspec.Struct):
            at: datetime
            payload: bytes

        @dataclass
        class Whole:
            parts: tuple[Part, ...]

        output.as_json({"whole": Whole((Part(datetime(2026, 1, 2, tzinfo=UTC), b"O|\xff"),))})
        read = json.loads(capsys.readouterr().out)
        assert read == {"whole": {"parts": [{"at": "2026-01-02T00:00:00Z", "payload": "O|�"}]}}

    def test_table_is_truncated_on_a_terminal_but_not_in_a_pipe(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        columns = (output.Column("N", right=True), output.Column("TEXT", grows=True))
        rows: list[tuple[str, str]] = [("1", "x" * 300)]
        output.show_table(columns, rows, "nothing")
        assert "x" * 300 in capsys.readouterr().out
        monkeypatch.setenv("COLUMNS", "40")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        output.results.cache_clear()
        output.show_table(columns, rows, "nothing")
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        # Bold is not a color.
        plain = [re.sub(r"\x1b\[[01]m", "", each) for each in lines]
        assert max(map(len, plain)) == 40
        assert plain[1].endswith("…")
        assert "\x1b" not in "".join(plain)

    def test_read_name_value_pairs(self) -> None:
        assert read_pairs(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
        with pytest.raises(UsageError, match="NAME=VALUE"):
            read_pairs(["A"])

    def test_changes_of_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "url"
        file.write_text("nats://me:pass@nats:4222\n")
        changes = read_changes(ApiSettings, ["LOG_LEVEL=debug", "NOMNOM_API_HOST=@x", f"NATS_URL=@{file}"])
        assert changes == {"LOG_LEVEL": "debug", "NOMNOM_API_HOST": "@x", "NATS_URL": "nats://me:pass@nats:4222"}
        assert read_changes(ApiSettings, ["NOMNOM_API_TOKENS=", "NATS_URL=nats://nats:4222"])
        for wrong in (
            "NATS_URL=nats://me:pass@nats",
            "NOMNOM_API_TOKENS=me:secret-token",
            "LOG_LEVEL",
            "NOMNOM_API_TOKENS",
        ):
            monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
            with pytest.raises(UsageError) as caught:
                read_changes(ApiSettings, [wrong])
            assert "pass@" not in str(caught.value)
            assert "secret-token" not in str(caught.value)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("getpass.getpass", lambda _: "typed-secret")
        assert read_changes(ApiSettings, ["NOMNOM_API_TOKENS"]) == {"NOMNOM_API_TOKENS": "typed-secret"}

    def test_options_and_expression_are_combined_into_one_filter(self) -> None:
        made = Matching(entity=("orders",), grep="date", since="2h").filter("reason:record expected entity:OLI")
        assert set(made.entities) == {"orders", "OLI"}
        assert made.reasons == ("record",)
        assert made.error == "expected date"
        assert made.since is not None


def test_every_command_is_documented() -> None:
    guide = _GUIDE.read_text()
    named = set(re.findall(r"`nomnom ([a-z-]+(?: [a-z-]+)?)", guide))
    for name in _commands():
        assert name in named or any(each.startswith(f"{name} ") for each in named), f"nomnom {name} is not documented"
    known = set(_commands())
    assert {each for each in named if each not in known and each.split()[0] not in known} == set()


def _commands() -> list[str]:
    found: list[str] = []
    for name in app:
        if name.startswith("-"):
            continue
        inner = [each for each in app[name] if not each.startswith("-")]
        found += [f"{name} {each}" for each in inner] if inner else [name]
    return found


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("version", "--json") is Exit.OK
    assert json.loads(capsys.readouterr().out)["nomnom"] == nomnom.__version__


class Proxy:
    """A proxy in front of the API that sends the given responses in turn and records the keys of the requests."""

    def __init__(self, responses: list[tuple[int, dict[str, str], Any]]) -> None:
        self.responses, self.keys = responses, list[str]()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")
            given = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if ": " in line)}
            self.keys.append(given["idempotency-key"])
            await reader.readexactly(int(given["content-length"]))
            status, headers, body = self.responses.pop(0)
            content = body if isinstance(body, bytes) else msgspec.json.encode(body)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
            if not self.responses:
                break
        writer.close()


async def _send(tmp_path: Path, *responses: tuple[int, dict[str, str], Any]) -> tuple[list[Ingested], list[str], Proxy]:
    proxy = Proxy(list(responses))
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    file = tmp_path / "file"
    file.write_text("a\nb\nc\n")
    problems: list[str] = []
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found: list[Ingested] = []
        async for each in Sending(address, None, tmp_path / "checkpoints").send(file):
            found.append(each)
            problems.append(each.problem)
    return found, problems, proxy


class TestSending:
    async def test_retry_uses_the_same_key(self, tmp_path: Path) -> None:
        found, problems, proxy = await _send(
            tmp_path,
            (502, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"<html>bad gateway</html>"),
            (503, {"Retry-After": "0"}, {"detail": "the stream is full"}),
            (202, {}, {"count": 3, "first_id": "x", "last_id": "y"}),
        )
        assert found[-1].accepted == 3
        assert "502" in problems[0]
        assert "the stream is full" in problems[1]
        assert problems[2] == ""
        assert len(proxy.keys) == 3
        assert len(set(proxy.keys)) == 1

    async def test_unread_lines_are_sent_again(self, tmp_path: Path) -> None:
        problem = {"line": 3, "last_line": None, "status": 400, "code": "too_many_problems", "detail": "too many"}
        refused = {"line": 2, "last_line": 2, "status": 400, "code": "invalid_body", "detail": "not UTF-8"}
        found, _, proxy = await _send(
            tmp_path, (207, {}, {"count": 1, "problems": [refused, problem]}), (202, {}, {"count": 1})
        )
        last = found[-1]
        assert (last.accepted, last.refused, last.lines) == (2, 1, 3)
        assert [(each.line, each.detail) for each in last.refusals] == [(2, "not UTF-8")]
        assert [each.rpartition("-")[2] for each in proxy.keys] == ["0", "4"]

    @pytest.mark.parametrize(
        ("status", "body", "text"),
        [
            (401, {"detail": "a token is needed"}, "a token is needed"),
            (404, b"not found", "status 404"),
            (202, b"<html>", "unexpected response"),
        ],
    )
    async def test_unexpected_response_is_reported(self, tmp_path: Path, status: int, body: Any, text: str) -> None:
        with pytest.raises(SendingError, match=text):
            await _send(tmp_path, (status, {}, body))


@pytest.mark.parametrize(
    ("arguments", "readonly"),
    [([], False), (["--readonly"], True), (["--dir", "{folder}"], False), (["--readonly", "--dir", "{folder}"], True)],
)
def test_app_opens_without_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], readonly: bool
) -> None:
    opened: list[tuple[str, bool]] = []

    def run_app(choose: Any, *, readonly: bool, **_: Any) -> int:
        opened.append((choose().location, readonly))
        return 0

    monkeypatch.setattr("nomnom_tui.app.terminal.run", run_app)
    monkeypatch.setenv("NOMNOM_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["nomnom", *(each.format(folder=tmp_path) for each in arguments)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
    assert opened == [(str(tmp_path), readonly)]


def test_app_opens_on_a_named_environment(monkeypatch: pytest.MonkeyPatch, far: None) -> None:
    monkeypatch.setattr("nomnom_tui.app.terminal.run", lambda choose, **_: choose().name != "far")
    monkeypatch.setattr("sys.argv", ["nomnom", "--env", "far"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
