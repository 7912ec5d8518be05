"""Components of the local environment that need no server: log files, ports, limits of the autoscaling policy."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from nomnom.scaling import LOCAL_LIMIT, ScalingError, ScalingPolicy
from nomnom.settings import SERVICES, SettingsError
from nomnom_control.environments.local.instance import Instance, InstanceError, State, choose_ports
from nomnom_control.environments.local.log_reader import follow_logs
from nomnom_control.environments.local.processes import ChildProcess, inherited
from nomnom_control.environments.local.rotation import rotate_logs
from nomnom_control.environments.local.variables import (
    STREAMS,
    component_variables,
    managed_variables,
    take_variables,
)


async def _texts(path: Path, tail: int | None) -> list[str]:
    return [each.text async for each in follow_logs({"api": path}, follow=False, tail=tail)]


async def _rotate_once(folder: Path, max_bytes: int) -> None:
    task = asyncio.create_task(rotate_logs(folder, 3600, max_bytes))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_full_log_is_rotated_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(4):
            writer.write(f"line {number} {'x' * 50}\n".encode())
            await _rotate_once(tmp_path, 40)
        writer.write(b"last\n")
    assert path.read_text() == "last\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2"]
    assert [text.split()[:2] for text in await _texts(path, None)] == [["line", "2"], ["line", "3"], ["last"]]


async def test_small_log_is_not_rotated(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("short\n")
    await _rotate_once(tmp_path, 40)
    assert [each.name for each in tmp_path.iterdir()] == ["api.log"]


@pytest.mark.parametrize("tail", [1, 3, 50, 10_000])
async def test_tail_of_a_long_log(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "api.log"
    lines = [f"{number} {'y' * (number % 3000)}" for number in range(5000)]
    path.write_text("\n".join(lines) + "\n")
    assert await _texts(path, tail) == lines[-tail:]


async def test_follow_continues_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    path.write_text("before " + "x" * 100 + "\n")
    lines = follow_logs({"api": path}, follow=True, tail=0)
    reading = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.3)
    await _rotate_once(tmp_path, 40)
    with path.open("a") as writer:
        writer.write("after\n")
    assert (await asyncio.wait_for(reading, 10)).text == "after"


def test_requested_port_in_use_is_rejected() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        with pytest.raises(InstanceError, match=f"port {port} for api is already in use"):
            choose_ports({}, {"api": port})
        assert choose_ports({"api": port}, {})["api"] != port


def test_port_of_an_unknown_server_is_rejected() -> None:
    with pytest.raises(InstanceError, match="unknown server 'kafka'"):
        choose_ports({}, {"kafka": 9092})


def test_every_server_gets_its_own_port() -> None:
    kept = dict.fromkeys(("api", "dashboard", "page", "nats", "nats_monitor", "postgres"), 40_123)
    assert len(set(choose_ports(kept, {}).values())) == len(kept)
    given = choose_ports({}, {"page": 40_124})
    assert given["page"] == 40_124


@pytest.mark.parametrize(
    "invalid",
    [
        {"minimum": 3, "maximum": 2},
        {"maximum": 0},
        {"maximum": 65},
        {"threshold": 0},
        {"cooldown": -1},
        {"maximum": 2.5},
    ],
)
def test_invalid_policy_is_rejected(invalid: dict[str, float]) -> None:
    with pytest.raises(ScalingError, match=r"expected|Expected"):
        ScalingPolicy().changed(invalid, LOCAL_LIMIT)


def test_integers_of_a_policy_stay_integers() -> None:
    changed = ScalingPolicy().changed({"maximum": 3.0, "cooldown": 1.5}, LOCAL_LIMIT)
    assert changed == ScalingPolicy(maximum=3, cooldown=1.5)
    assert isinstance(changed.maximum, int)


def test_unreadable_state_is_reported_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{]")
    with pytest.raises(InstanceError, match=r"cannot read .*state\.json"):
        Instance(tmp_path).load()


def test_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    revision = {"number": 1, "at": "2024-06-01T12:00:00Z", "cause": "c", "current": True, "settings": {"A": "1"}}
    old = {"rule": {"maximum": 3}, "held": 2, "ports": {"api": 8080}, "revisions": {"api": [revision]}}
    (tmp_path / "state.json").write_text(json.dumps(old))
    state = Instance(tmp_path).load()
    assert (state.policy.maximum, state.pinned, state.revision("api")) == (3, 2, {"A": "1"})
    assert state.streams.stream == "MESSAGES"
    Instance(tmp_path).save(state)
    assert Instance(tmp_path).load() == state


def test_child_processes_do_not_inherit_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NATS_STREAM", "BATCH_SIZE", "PGPORT", "NOMNOM_SCHEMA", "SECRET_OF_SOMEONE"):
        monkeypatch.setenv(name, "from the shell")
    for name in ("PATH", "LC_ALL", "PYTHONPATH"):
        monkeypatch.setenv(name, "needed")
    passed = inherited()
    assert "from the shell" not in passed.values()
    assert {passed[name] for name in ("PATH", "LC_ALL", "PYTHONPATH")} == {"needed"}


@pytest.mark.parametrize("component", SERVICES)
def test_managed_variables_are_declared_and_ignore_the_shell(component: str) -> None:
    shell = {name: "7" for name in managed_variables(component, State(), {}) if name not in STREAMS}
    assert shell.keys() <= SERVICES[component].declared().keys()
    state = State()
    take_variables(state, {**shell, "LOG_LEVEL": "debug", "HOME": "/root"})
    assert state.variables == {"LOG_LEVEL": "debug"}
    assert component_variables(component, state, {}).given == {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}


def test_only_stream_names_are_kept_for_later_runs() -> None:
    state = State()
    take_variables(state, {"NATS_STREAM": "ORDERS", "BATCH_SIZE": "7"})
    state.ports = {"api": 8080}
    assert "BATCH_SIZE" not in component_variables("api", state, {}).given
    assert component_variables("worker", state, {}).given["BATCH_SIZE"] == "7"
    take_variables(state, {"LOG_LEVEL": "debug"})
    assert state.variables == {"NATS_STREAM": "ORDERS", "LOG_LEVEL": "debug"}
    with pytest.raises(InstanceError, match="keeps its messages in stream ORDERS"):
        take_variables(state, {"NATS_CONSUMER": "others"})
    with pytest.raises(SettingsError, match="MAX_DELIVER"):
        take_variables(State(), {"MAX_DELIVER": "abc"})


async def test_exited_process_is_reported_with_its_logged_problems(tmp_path: Path) -> None:
    lines = [
        '{"level": "info", "event": "connected"}',
        "2024-06-01 LOG:  starting",
        '2024-06-01 LOG:  could not bind IPv4 address "127.0.0.1": Address already in use',
        "2024-06-01 HINT:  Is another postmaster already running?",
        "2024-06-01 FATAL:  could not create any TCP/IP sockets",
        "2024-06-01 LOG:  database system is shut down",
        "[1] [INF] Starting nats-server",
        "[1] [FTL] address already in use",
    ]
    log = tmp_path / "log"
    log.write_text("an error of an earlier run\n")
    script = tmp_path / "lines"
    script.write_text("\n".join(lines))
    process = ChildProcess("it", ["/bin/sh", "-c", f"cat {script}; exit 3"], log)
    await process.start()
    await process.wait()
    report = str(process.failure())
    assert report.startswith(f"it ended with exit code 3 ({log}):")
    assert [each.strip() for each in report.splitlines()[1:]] == [*lines[2:5], lines[7]]
    silent = ChildProcess("it", ["/bin/sh", "-c", "exit 1"], log)
    await silent.start()
    await silent.wait()
    assert "it wrote nothing" in str(silent.failure())
