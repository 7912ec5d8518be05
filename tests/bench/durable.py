"""What it costs that 202 means stored on disk: the API on nats-servers that differ in when they write to disk.

``fsync``: sync_interval always, the default. ``lazy``: nats-server's own default, which acknowledges first. A slow disk
is simulated with strace, which delays each fsync.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats

from nomnom.settings import Settings
from nomnom.streams import message_stream
from nomnom_control.environments.local.servers import NatsServer
from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders, run, tool, wrk

_MESSAGE, _BATCH = "/api/ingest/message", "/api/ingest/batch?ids=none"
_RATE, _CLIENTS = 2000, 50
_SLOW = 3300
"""Microseconds added to each fsync: about 300 of them a second."""
_KINDS = {"fsync": "always", "lazy": "2m"}


@asynccontextmanager
async def _variants(
    stage: Harness, *kinds: str, slow: bool = False
) -> AsyncGenerator[dict[str, tuple[NatsServer, str]]]:
    """For each kind a nats-server with the message stream, and the URL of an API that uses it."""
    found: dict[str, tuple[NatsServer, str]] = {}
    async with AsyncExitStack() as stack:
        for kind in kinds:
            name = f"{kind}-slow" if slow else kind
            log = stage.folder / f"{name}.log"
            server = NatsServer(
                stage.folder / f"nats-{name}", free_port(), free_port(), log, sync_interval=_KINDS[kind]
            )
            if slow:
                server.process.command = [*_slowed(), *server.process.command]
            stack.push_async_callback(server.stop)
            await server.start()
            client = await nats.connect(server.url)
            await client.jetstream().add_stream(message_stream(Settings().streams))
            await client.close()
            port = free_port()
            variables = {"NATS_URL": server.url, "NOMNOM_API_HOST": "127.0.0.1", "NOMNOM_API_PORT": str(port)}
            await stack.enter_async_context(
                stage.running(f"api-{name}", "-m", "nomnom_api", wait_for=port, **variables)
            )
            found[kind] = (server, f"http://127.0.0.1:{port}")
        yield found


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Single messages at full speed and at an even rate, batches, and a slow disk."""
    script = stage.folder / "post.lua"
    body = next(orders(1))
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "text/plain"\nwrk.body = {json.dumps(body)}\n'
    )
    async with _variants(stage, *_KINDS) as variants:
        for _, url in variants.values():
            await wrk(url + _MESSAGE, script, 1)
        for connections in (64, 256):
            part = f"durable {connections}"
            report.title(f"{part}: POST {_MESSAGE} by wrk, {options.rounds} rounds of {options.seconds:g} s")
            await _speeds(report, part, variants, (script, options.seconds, connections), options.rounds)
        await _rates(stage, report, variants, body, options)
        await _batches(stage, report, variants, options)
    async with _variants(stage, *_KINDS, slow=True) as variants:
        await _slow_disk(report, variants, script, options)


async def _rates(
    stage: Harness, report: Report, variants: dict[str, tuple[NatsServer, str]], body: str, options: argparse.Namespace
) -> None:
    h2load = tool("h2load", "apt-get install nghttp2-client")
    seconds = round(options.seconds * 2)
    file = stage.folder / "order"
    file.write_text(body)
    for rate in (_RATE // 20, _RATE):
        report.title(f"durable: {_CLIENTS} clients with {rate / _CLIENTS:g} requests/s each, {seconds} s each")
        for kind, (server, url) in [*variants.items()] * 2:
            log = stage.folder / f"{kind}.h2load"
            log.unlink(missing_ok=True)
            load = ["--h1", "-t1", f"-c{_CLIENTS}", f"--rps={rate / _CLIENTS}", f"-D{seconds}", "--warm-up-time=1"]
            await run(
                h2load, *load, "-d", str(file), "-H", "content-type: text/plain", f"--log-file={log}", url + _MESSAGE
            )
            rows = [each.split("\t") for each in log.read_text().splitlines()]
            took = sorted(int(each[2]) / 1000 for each in rows)
            figures = {
                "rate": len(rows) / seconds,
                "accepted": sum(each[1] == "202" for each in rows) / len(rows),
                **{f"p{share}": took[len(took) * share // 100] for share in (50, 99)},
            }
            report.line(
                f"durable: {kind} at {rate}/s",
                figures,
                f"{figures['rate']:,.0f}/s, accepted: {figures['accepted']:.2%}; "
                f"p50 {figures['p50']:.1f} ms, p99 {figures['p99']:.1f} ms, max {took[-1]:.1f} ms",
            )
            await _empty(server)


async def _batches(
    stage: Harness, report: Report, variants: dict[str, tuple[NatsServer, str]], options: argparse.Namespace
) -> None:
    count = min(options.messages, 300_000)
    report.title(f"durable: POST /api/ingest/batch of {count:,} lines by curl")
    file = stage.folder / "orders.txt"
    file.write_text("\n".join(orders(count)))
    curl = tool("curl", "apt-get install curl")
    speeds: dict[str, list[float]] = {kind: [] for kind in variants}
    for _ in range(options.rounds):
        for kind, (server, url) in variants.items():
            started = time.perf_counter()
            post = ["-sS", "--fail", "-XPOST", "-HContent-Type: text/plain", "-T", str(file), url + _BATCH]
            answer = await run(curl, *post)
            speeds[kind].append(count / (time.perf_counter() - started))
            assert json.loads(answer)["count"] == count, answer
            await _empty(server)
    report.compare("durable batch", speeds.pop("fsync"), speeds, "messages/s")


async def _slow_disk(
    report: Report, variants: dict[str, tuple[NatsServer, str]], script: Path, options: argparse.Namespace
) -> None:
    seconds = max(options.seconds, 4.0)  # one fsync after another, 256 messages take a second
    for connections in (64, 256):
        part = f"durable slow {connections}"
        report.title(f"{part}: {_SLOW / 1000:g} ms more for each fsync")
        await _speeds(report, part, variants, (script, seconds, connections), options.rounds)


async def _speeds(
    report: Report,
    part: str,
    variants: dict[str, tuple[NatsServer, str]],
    load: tuple[Path, float, int],
    rounds: int,
) -> None:
    """Rounds of wrk with a script, for so many seconds, with so many connections."""
    speeds: dict[str, list[float]] = {kind: [] for kind in variants}
    for _ in range(rounds):
        for kind, (server, url) in variants.items():
            speeds[kind].append(await wrk(url + _MESSAGE, *load))
            await _empty(server)
    report.compare(part, speeds.pop("fsync"), speeds, "messages/s")
    _groups(report, part, variants["fsync"][1])


def _groups(report: Report, part: str, url: str) -> None:
    """The mean size of the groups so far."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        text = response.read().decode()
    values = {name: float(value) for name, value in re.findall(r"^(nomnom_api_group_\w+) (\S+)$", text, re.MULTILINE)}
    number = values["nomnom_api_group_messages_count"]
    size = values["nomnom_api_group_messages_sum"] / number if number else 0.0
    seconds = values["nomnom_api_group_seconds_sum"] / number if number else 0.0
    report.line(
        f"{part}: groups",
        {"number": number, "messages": size, "seconds": seconds},
        f"{number:,.0f} groups so far, on average {size:.0f} messages, stored in {seconds * 1000:.1f} ms",
    )


def _slowed() -> list[str]:
    """The command that runs a program with slow fsyncs; with a seccomp filter, all other system calls stay fast."""
    calls = "fsync,fdatasync"
    inject = f"inject={calls}:delay_enter={_SLOW}"
    strace = tool("strace", "apt-get install strace")
    return [strace, "-D", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={calls}", "-e", inject, "-o", "/dev/null"]


async def _empty(server: NatsServer) -> None:
    client = await nats.connect(server.url)
    await client.jetstream(timeout=30).purge_stream("MESSAGES")
    await client.close()
