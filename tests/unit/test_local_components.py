"""Components of the local environment that need no server: log files, ports, limits of the autoscaling policy."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from nomnom_control.environments import ScalingRule
from nomnom_control.environments.local.instance import Instance, InstanceError, choose_ports
from nomnom_control.environments.local.log_reader import follow_logs
from nomnom_control.environments.local.rotation import rotate_logs
from nomnom_control.environments.local.scaling import change_rule
from nomnom_control.errors import ControlError


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
        with pytest.raises(InstanceError, match=f"port {port} for api is taken"):
            choose_ports({}, {"api": port})
        assert choose_ports({"api": port}, {})["api"] != port


def test_port_of_an_unknown_server_is_rejected() -> None:
    with pytest.raises(InstanceError, match="no server 'kafka'"):
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
    with pytest.raises(ControlError, match=r"expected|Expected"):
        change_rule(ScalingRule(), invalid)


def test_integers_of_a_policy_stay_integers() -> None:
    changed = change_rule(ScalingRule(), {"maximum": 3.0, "cooldown": 1.5})
    assert changed == ScalingRule(maximum=3, cooldown=1.5)
    assert isinstance(changed.maximum, int)


def test_unreadable_state_is_reported_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{]")
    with pytest.raises(InstanceError, match=r"state\.json cannot be read"):
        Instance(tmp_path).load()
