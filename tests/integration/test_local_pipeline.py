"""The whole local pipeline through the command line: ``nomnom`` and the processes it starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from program_harness import Program, started, until

from conftest import LINE, ORDER
from nomnom.settings import Settings
from nomnom_control.environments import Progress, Step
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_control.environments.local.instance import Instance, choose_ports
from nomnom_control.environments.local.supervisor import Supervisor
from nomnom_control.errors import ControlError


@pytest.fixture(scope="module")
def nomnom() -> Iterator[Program]:
    folder = Path(tempfile.mkdtemp(prefix="nomnom-local-"))
    folder.chmod(0o755)
    program = Program(folder / "instance")
    yield program
    program("destroy", "--yes")
    assert not program.processes()
    assert not program.folder.exists()
    shutil.rmtree(folder)


def test_commands_without_a_running_pipeline(nomnom: Program) -> None:
    assert "no pipeline is running in" in nomnom("status", code=4)
    assert "not running" in nomnom("scale", code=4)


def test_up_completes_a_record(nomnom: Program) -> None:
    output = nomnom("up", "--detach", "--check")
    assert "completed" in output
    components = {each["name"]: each["health"] for each in nomnom.read("status")["components"]}
    assert components.keys() == {"api", "nats", "worker", "postgres", "dashboard", "housekeeper"}
    assert {components[name] for name in ("api", "nats", "postgres", "dashboard")} == {"healthy"}


def test_second_up_reports_the_running_process(nomnom: Program) -> None:
    assert "is already running (process" in nomnom("up", code=1)


def test_post_and_wait(nomnom: Program) -> None:
    assert "completed" in nomnom("post", f"{ORDER}\n{LINE}", "--wait")


def test_file_is_ingested_once(nomnom: Program, tmp_path: Path) -> None:
    file = tmp_path / "orders.tbl"
    lines = [ORDER.removeprefix("O|").replace("123|456", f"{key}|456") + "|" for key in range(1000, 1300)]
    file.write_text("\n".join(lines))
    sent = nomnom.read("ingest", str(file), "--entity", "O")
    assert (sent["accepted"], sent["lines"], sent["refused"]) == (300, 300, 0)
    assert "already sent completely" in nomnom("ingest", str(file), "--entity", "O")
    assert nomnom.read("ingest", str(file), "--entity", "O", "--restart")["accepted"] == 300
    assert "2 accepted" in nomnom("ingest", "-", given=f"{ORDER}\n\n{ORDER}\n")
    assert "cannot read" in nomnom("ingest", str(tmp_path / "absent"), code=1)


def test_bad_record_is_fixed_and_replayed(nomnom: Program) -> None:
    bad = ORDER.replace("2024-01-01", "2024-02-30").replace("O|123", "O|777")
    assert "dead letter" in nomnom("post", bad, "--wait", code=1)
    [dead_letter] = nomnom.read("dlq", "ls")
    assert (dead_letter["entity"], dead_letter["reason"], dead_letter["attempts"]) == ("orders", "record", 3)
    sequence = str(dead_letter["sequence"])
    assert "o_orderdate" in nomnom("dlq", "show", sequence)
    [group] = nomnom.read("dlq", "groups", "--by", "reason")
    assert (group["key"], group["count"], group["example"]) == ("record", 1, dead_letter["sequence"])
    [forecast] = nomnom.read("dlq", "dry-run", "--set", "o_orderdate=2024-02-29")
    assert forecast["outcome"] == "completes"
    nomnom("dlq", "replay", "--seq", sequence, "--set", "o_orderdate=2024-02-29")
    until(lambda: "completed" in nomnom("message", dead_letter["message_id"]))
    assert nomnom.read("dlq", "ls") == []
    assert "select dead letters" in nomnom("dlq", "replay", code=2)


def test_manual_scaling_and_autoscaling(nomnom: Program) -> None:
    nomnom("scale", "2")
    until(lambda: nomnom.read("scale")["ready"] == 2)
    assert nomnom.read("scale")["paused"]
    nomnom("scale", "--auto", "--cooldown", "1", "--max", "3")
    until(lambda: nomnom.read("scale")["actual"] == 0)
    assert "expected 0 <= minimum" in nomnom("scale", "--min", "5", "--max", "2", code=1)
    assert "completed" in nomnom("post", ORDER, "--wait")


def test_roll_out_and_roll_back_settings(nomnom: Program) -> None:
    nomnom("config", "worker", "BATCH_SIZE=50")
    assert nomnom.read("history", "worker")[0]["variables"] == {"BATCH_SIZE": "50"}
    nomnom("rollback", "worker")
    newest = nomnom.read("history", "worker")[0]
    assert (newest["variables"], newest["current"]) == ({}, True)
    assert "NAME=VALUE" in nomnom("config", "worker", "BATCH_SIZE", code=2)
    nomnom("restart", "api")
    assert "completed" in nomnom("post", ORDER, "--wait")


async def test_failed_rollout_is_rolled_back(nomnom: Program) -> None:
    for component, wrong in (("worker", "BATCH_SIZE"), ("api", "NOMNOM_API_GRACE")):
        nomnom("scale", "1")
        until(lambda: nomnom.read("scale")["ready"] == 1)
        # Past the checks of the command line: a component may also fail to start for another reason.
        with pytest.raises(ControlError, match=f"(?s)was rolled back.*{wrong}: expected a"):
            async for _ in LocalEnvironment(nomnom.folder).roll_out(component, {wrong: "none"}, "unchecked"):
                pass
        newest, failed, *_ = nomnom.read("history", component)
        assert newest["variables"] == {}
        assert newest["current"]
        assert wrong in failed["variables"]
        assert "completed" in nomnom("post", ORDER, "--wait")
    nomnom("scale", "--auto")


def test_invalid_setting_is_rejected_before_a_restart(nomnom: Program) -> None:
    nomnom("scale", "0")
    until(lambda: nomnom.read("scale")["actual"] == 0)
    before = nomnom.read("history", "worker")
    assert "MAX_DELIVER: expected a whole number, at least 1" in nomnom("config", "worker", "MAX_DELIVER=abc", code=2)
    assert "did you mean MAX_DELIVER?" in nomnom("config", "worker", "MAX_DELIVR=9", code=2)
    assert "all components share it" in nomnom("config", "worker", "NATS_STREAM=OTHER", code=2)
    assert "set both, or neither" in nomnom("config", "dashboard", "NOMNOM_DASHBOARD_USER=ann", code=2)
    assert "api, worker, dashboard, housekeeper have" in nomnom("config", "nats", "X=1", code=1)
    assert nomnom.read("history", "worker") == before
    nomnom("config", "worker", "MAX_DELIVER=4")
    listed = {each["name"]: each for each in nomnom.read("config", "worker")}
    assert (listed["MAX_DELIVER"]["value"], listed["MAX_DELIVER"]["default"]) == ("4", "3")
    assert listed["MAX_DELIVER"]["changed"]
    assert not listed["BATCH_SIZE"]["changed"]
    assert listed["WORKER_HEALTH_PORT"]["managed"]
    nomnom("config", "worker", "MAX_DELIVER=")
    assert not {each["name"]: each for each in nomnom.read("config", "worker")}["MAX_DELIVER"]["changed"]
    assert {each["component"] for each in nomnom.read("config")} == {"api", "worker", "dashboard", "housekeeper"}
    nomnom("scale", "--auto")


def test_secret_is_read_from_a_file_and_never_shown(nomnom: Program, tmp_path: Path) -> None:
    secret = "till:s3cr3t-token"
    for given in (f"NOMNOM_API_TOKENS={secret}", "NOMNOM_API_TOKENS", "NOMNOM_API_TOKENS=@/nowhere"):
        refused = nomnom("config", "api", given, code=2, given="")
        assert "NOMNOM_API_TOKENS" in refused
        assert "s3cr3t" not in refused
    file = tmp_path / "tokens"
    file.write_text("short\n")
    assert "at least 8" in nomnom("config", "api", f"NOMNOM_API_TOKENS=@{file}", code=2)
    file.write_text(f"{secret}\n")
    shown = nomnom("config", "api", f"NOMNOM_API_TOKENS=@{file}")
    for command in ("config", "history"):
        shown += nomnom(command, "api") + nomnom(command, "api", "--json")
    assert "s3cr3t" not in shown
    assert shown.count("***") >= 4
    status = json.loads((nomnom.folder / "state.json").read_text())["ports"]
    request = urllib.request.Request(f"http://127.0.0.1:{status['api']}/api/ingest/message", ORDER.encode())
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)
    assert "completed" in nomnom("post", ORDER, "--wait")
    nomnom("config", "api", "NOMNOM_API_TOKENS=")
    assert "completed" in nomnom("post", ORDER, "--wait")


def test_dashboard_shows_the_pipeline(nomnom: Program) -> None:
    ports = json.loads((nomnom.folder / "state.json").read_text())["ports"]
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['dashboard']}/api/stats", timeout=10) as answer:
        assert json.load(answer)["counts"]["completed"]["value"] >= 1

    def healthy() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['page']}/api/health", timeout=10) as answer:
            return bool(json.load(answer)["status"] == "ok")

    # The earlier tests restarted components: what the dashboard knows of workers is up to a few seconds old.
    until(healthy)


async def test_scaling_history(nomnom: Program) -> None:
    samples = await LocalEnvironment(nomnom.folder).scaling_history()
    assert {each.actual for each in samples} >= {0, 1, 2}
    assert [each.at for each in samples] == sorted(each.at for each in samples)


def test_inspect_streams_and_consumer(nomnom: Program) -> None:
    assert [each["Stream"] if "Stream" in each else next(iter(each.values())) for each in nomnom.read("stream", "ls")]
    assert "MESSAGES" in nomnom("stream", "info")
    assert "workers" in nomnom("consumer", "info")
    assert "not confirmed" in nomnom("stream", "purge", "MESSAGES", code=5, given="")


async def test_logs_continue_after_a_restart(nomnom: Program) -> None:
    here = LocalEnvironment(nomnom.folder)
    lines = here.logs(["api"], follow=True, tail=0)
    reading = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(nomnom, "restart", "api")
    line = await asyncio.wait_for(reading, 20)
    assert line.component == "api"
    await lines.aclose()  # pyright: ignore[reportAttributeAccessIssue]


def test_killed_process_is_restarted(nomnom: Program) -> None:
    [api] = [each for each in nomnom.processes() if "nomnom_api" in each.cmdline()]
    api.send_signal(signal.SIGKILL)
    until(lambda: any("nomnom_api" in each.cmdline() and each.pid != api.pid for each in nomnom.processes()))
    until(lambda: nomnom.read("status")["components"][0]["health"] == "healthy")


def test_up_after_the_supervisor_was_killed(nomnom: Program) -> None:
    state = json.loads((nomnom.folder / "state.json").read_text())
    supervisor = psutil.Process(state["pid"])
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait(10)
    orphans = {each.pid for each in nomnom.processes()}
    assert orphans
    assert "no pipeline is running in" in nomnom("status", code=4)
    assert "left over from a killed run" in nomnom("up", "--detach")
    assert not orphans & {each.pid for each in nomnom.processes()}
    assert json.loads((nomnom.folder / "state.json").read_text())["ports"] == state["ports"]
    assert "completed" in nomnom("post", ORDER, "--wait")


def test_ctrl_c_stops_gracefully_and_a_second_one_immediately(nomnom: Program) -> None:
    nomnom("down")
    for interrupts, code in ((1, 0), (2, 0)):
        running = subprocess.Popen(
            [sys.executable, "-m", "nomnom_cli.program", "up"], env=nomnom.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        until(lambda: '"healthy"' in nomnom("status", "--json", code=None))
        for _ in range(interrupts):
            running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
        assert "Traceback" not in output
        assert running.returncode in (code, 130), output
        assert not nomnom.processes()
    nomnom("up", "--detach")
    assert "completed" in nomnom("post", ORDER, "--wait")


@pytest.mark.parametrize("interrupts", [1, 2])
async def test_interrupt_during_a_step_that_ignores_cancellation(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, interrupts: int
) -> None:
    instance = Instance(open_folder / "uncancellable")
    supervisor = Supervisor(instance)
    reported: list[Progress] = []

    async def uncancellable(_: Settings, **__: Any) -> list[str]:
        for _ in range(interrupts):
            supervisor.interrupt()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await asyncio.sleep(600)
        return []

    async def ready() -> None:
        raise AssertionError("the supervisor did not stop")

    monkeypatch.setattr("nomnom_control.environments.local.supervisor.set_up", uncancellable)
    async with asyncio.timeout(60):
        await supervisor.run(reported.append, ready)
    assert [each.step for each in reported if each.state is Step.DONE][-2:] == ["stop postgres", "stop nats"]
    instance.acquire()
    instance.release()


def test_port_in_use_is_reported_and_nothing_is_left_running(nomnom: Program) -> None:
    nomnom("down")
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        assert f"port {port} for api is already in use" in nomnom("up", "--port", port, code=1)
    assert not nomnom.processes()
    nomnom("up", "--detach")


def test_down_keeps_the_data(nomnom: Program) -> None:
    nomnom("down")
    assert not nomnom.processes()
    assert (nomnom.folder / "postgres" / "data" / "PG_VERSION").exists()
    assert "not running" in nomnom("down", code=4)


def test_concurrent_starts_use_different_ports() -> None:
    """Both prefer the default ports; a port chosen by one is not free for the other, even before it listens."""
    folders = [Path(tempfile.mkdtemp(prefix="nomnom-pair-")) for _ in range(2)]
    programs = [Program(folder / "instance") for folder in folders]
    for folder in folders:
        folder.chmod(0o755)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda program: program("up", "--detach"), programs))
        ports = [json.loads((program.folder / "state.json").read_text())["ports"] for program in programs]
        assert not set(ports[0].values()) & set(ports[1].values())
        for program in programs:
            assert {each["health"] for each in program.read("status")["components"]} <= {"healthy", "stopped"}
    finally:
        for program in programs:
            program("destroy", "--yes")
        for folder in folders:
            shutil.rmtree(folder)


def test_stream_and_consumer_names_apply_to_all_components_and_are_kept() -> None:
    with started(
        "streams", variables={"NATS_STREAM": "ORDERS", "NATS_CONSUMER": "clerks", "BATCH_SIZE": "7"}
    ) as nomnom:
        assert "completed" in nomnom("post", ORDER, "--wait")
        assert nomnom.read("status")["lag"] == 0
        listed = nomnom("stream", "ls")
        assert "ORDERS " in listed
        assert "ORDERSDLQ" in listed
        assert "MESSAGES " not in listed.replace("  MESSAGES  ", "")
        assert "clerks" in nomnom("consumer", "ls")
        for component in ("api", "worker", "dashboard", "housekeeper"):
            values = {each["name"]: each["value"] for each in nomnom.read("config", component)}
            assert (values["NATS_STREAM"], values["NATS_CONSUMER"]) == ("ORDERS", "clerks")
        assert values["NATS_URL"].startswith("nats://127.0.0.1:")
        assert {each["name"]: each["value"] for each in nomnom.read("config", "worker")}["BATCH_SIZE"] == "7"
        nomnom("down")
        nomnom.environment["NATS_STREAM"] = "OTHER"
        assert "keeps its messages in stream ORDERS" in nomnom("up", "--detach", code=1)
        assert not nomnom.processes()
        # What belongs to the data is kept; other settings are those of the shell.
        for name in ("NATS_STREAM", "NATS_CONSUMER", "BATCH_SIZE"):
            del nomnom.environment[name]
        assert "completed" in nomnom("up", "--detach", "--check")
        assert {each["name"]: each["value"] for each in nomnom.read("config", "worker")}["BATCH_SIZE"] == "500"


def test_invalid_setting_in_the_shell_prevents_the_start(nomnom: Program) -> None:
    nomnom.environment["MAX_DELIVER"] = "abc"
    try:
        assert "MAX_DELIVER: expected a whole number" in nomnom("up", "--detach", code=1)
        assert not nomnom.processes()
    finally:
        del nomnom.environment["MAX_DELIVER"]


def test_failed_start_of_a_server_is_reported_with_its_error(nomnom: Program) -> None:
    version = nomnom.folder / "postgres" / "data" / "PG_VERSION"
    kept = version.read_text()
    version.write_text("1\n")
    try:
        report = nomnom("up", "--detach", code=1)
    finally:
        version.write_text(kept)
    error = report[report.index("nomnom: ") :]
    assert "FATAL:  database files are incompatible with server" in error
    assert "DETAIL:  The data directory was initialized by PostgreSQL version 1" in error
    assert error.count("nomnom:") == 1
    assert not nomnom.processes()


async def test_port_taken_during_the_start_is_replaced(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, int] = {}

    def choose(kept: dict[str, int], given: dict[str, int]) -> dict[str, int]:
        ports = choose_ports(kept, given)
        chosen.update(ports)
        for name, probe in zip(("nats", "postgres", "page"), taken, strict=True):
            # As servers do: a port with connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", ports[name]))
            probe.listen()
        return ports

    monkeypatch.setattr("nomnom_control.environments.local.supervisor.choose_ports", choose)
    supervisor = Supervisor(Instance(open_folder / "raced"))
    reported: list[Progress] = []
    taken = [socket.socket() for _ in range(3)]

    async def ready() -> None:
        ports = supervisor.state.ports
        assert all(ports[name] != chosen[name] for name in ("nats", "postgres", "page"))
        assert ports["api"] == chosen["api"]
        supervisor.interrupt()

    try:
        async with asyncio.timeout(120):
            await supervisor.run(reported.append, ready)
    finally:
        for probe in taken:
            probe.close()
    said = " ".join(each.text for each in reported)
    assert f"port {chosen['postgres']} of postgres is in use by another program; using" in said
