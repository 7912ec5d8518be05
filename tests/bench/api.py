"""Compares the ingest API with bare BlackSheep at full and fixed rates, and its batches with bare publishing."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nomnom.envelope import headers, ingest_subject, new_message_id
from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders, run, tool, wrk

_PATH = "/api/ingest/message"
_CLIENTS = 200


@asynccontextmanager
async def _both(stage: Harness) -> AsyncIterator[dict[str, str]]:
    """The API and its ceiling, one process each; URLs by name."""
    ours, bare = free_port(), free_port()
    uvicorn = ["--port", str(bare), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level=error"]
    async with (
        stage.running("api", "-m", "nomnom_api", wait_for=ours, NOMNOM_API_PORT=str(ours), NOMNOM_API_HOST="127.0.0.1"),
        stage.running("bare", "-m", "uvicorn", "tests.bench.bare:app", *uvicorn, wait_for=bare),
    ):
        yield {"nomnom": f"http://127.0.0.1:{ours}", "bare": f"http://127.0.0.1:{bare}"}


def _script(folder: Path, body: str) -> Path:
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "text/plain"\nwrk.body = {json.dumps(body)}\n'
    )
    return script


async def measure_messages(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Requests/s of single messages with 64 connections."""
    report.title(f"api: POST {_PATH}, wrk with 64 connections, {options.rounds} rounds of {options.seconds:g} s")
    script = _script(stage.folder, next(orders(1)))
    speeds: dict[str, list[float]] = {"nomnom": [], "bare": []}
    async with _both(stage) as urls:
        for name in urls:
            await wrk(urls[name] + _PATH, script, 1)
        for _ in range(options.rounds):
            for name, url in urls.items():
                speeds[name].append(await wrk(url + _PATH, script, options.seconds))
            await stage.empty()
    report.compare("api", speeds["nomnom"], {"bare BlackSheep": speeds["bare"]}, "requests/s")


async def measure_fixed_rate(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Latency at a fixed rate: percentiles of the time since a request was due."""
    vegeta = tool("vegeta", "go install github.com/tsenart/vegeta/v12@latest")
    report.title(f"rate: latency at a fixed rate, {options.seconds * 2:g} s each")
    body = stage.folder / "order"
    body.write_text(next(orders(1)))
    async with _both(stage) as urls:
        for rate in (options.rate // 4, options.rate // 2, options.rate):
            for name, url in urls.items():
                results = stage.folder / f"{name}-{rate}.bin"
                targets = stage.folder / f"{name}.target"
                targets.write_text(f"POST {url}{_PATH}\nContent-Type: text/plain\n@{body}\n")
                attack = ["attack", f"-rate={rate}", f"-duration={options.seconds * 2:g}s", "-max-workers=512"]
                await run(vegeta, *attack, f"-targets={targets}", f"-output={results}")
                figures = json.loads(await run(vegeta, "report", "-type=json", str(results)))
                results.unlink()
                latency = {k: figures["latencies"][k] / 1e6 for k in ("50th", "99th", "max")}
                report.line(
                    f"rate: {name} at {rate}/s",
                    {**latency, "sent": figures["rate"], "done": figures["throughput"]},
                    f"sent {figures['rate']:,.0f}/s, accepted: {figures['success']:.2%}; "
                    f"p50 {latency['50th']:.1f} ms, p99 {latency['99th']:.1f} ms, max {latency['max']:.1f} ms",
                )
            await stage.empty()


async def measure_many_clients(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Latency at a fixed rate shared by 200 clients; each sends at its own rate and waits for the response.

    vegeta needs most of a core for 10,000 requests/s, this a fraction: on two cores it is the api that is measured.
    """
    h2load = tool("h2load", "apt-get install nghttp2-client")
    seconds = round(options.seconds * 2)
    report.title(f"clients: {_CLIENTS} clients with {options.rate / _CLIENTS:g} requests/s each, {seconds} s each")
    body = stage.folder / "order"
    body.write_text(next(orders(1)))
    async with _both(stage) as urls:
        for name, url in [*urls.items()] * 2:
            log = stage.folder / f"{name}.log"
            log.unlink(missing_ok=True)
            load = ["--h1", "-t1", f"-c{_CLIENTS}", f"--rps={options.rate / _CLIENTS}", f"-D{seconds}"]
            load += ["--warm-up-time=2", "-d", str(body), "-H", "content-type: text/plain", f"--log-file={log}"]
            await run(h2load, *load, url + _PATH)
            rows = [each.split("\t") for each in log.read_text().splitlines()]
            took = sorted(int(each[2]) / 1000 for each in rows)
            figures = {
                "rate": len(rows) / seconds,
                "accepted": sum(each[1] in ("200", "202") for each in rows) / len(rows),
                **{f"p{share}": took[len(took) * share // 100] for share in (50, 99)},
            }
            report.line(
                f"clients: {name}",
                figures,
                f"{figures['rate']:,.0f}/s, accepted: {figures['accepted']:.2%}; "
                f"p50 {figures['p50']:.1f} ms, p99 {figures['p99']:.1f} ms, max {took[-1]:.1f} ms",
            )
            await stage.empty()


async def measure_batch(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Messages/s of one streamed batch request, compared with publish_async of the same payloads."""
    count = options.messages
    report.title(f"batch: POST /api/ingest/batch of {count:,} lines by curl, against nats-py's bare publish_async")
    file = stage.folder / "orders.txt"
    file.write_text("\n".join(orders(count)))
    curl = tool("curl", "apt-get install curl")
    ours: list[float] = []
    peer: list[float] = []
    async with _both(stage) as urls:
        for _ in range(options.rounds):
            await stage.empty()
            started = time.perf_counter()
            answer = await run(
                curl, "-sS", "--fail", "-XPOST", "-HContent-Type: text/plain", "-T", str(file),
                f"{urls['nomnom']}/api/ingest/batch?ids=none",
            )  # fmt: skip
            ours.append(count / (time.perf_counter() - started))
            assert json.loads(answer)["count"] == count, answer
            await stage.empty()
            peer.append(await _publish_all(stage, file))
    report.compare("batch", ours, {"publish_async": peer}, "messages/s")


async def _publish_all(stage: Harness, file: Path) -> float:
    payloads = file.read_bytes().split(b"\n")
    started = time.perf_counter()
    pending: list[asyncio.Future[object]] = []
    for payload in payloads:
        message_id = new_message_id()
        subject = ingest_subject("orders", message_id)
        pending.append(await stage.jetstream.publish_async(subject, payload, headers=headers(1_700_000_000_000_000)))
    await asyncio.gather(*pending)
    return len(payloads) / (time.perf_counter() - started)
