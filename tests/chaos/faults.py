"""The faults of a run. Each is drawn from a seeded generator, lasts a moment, and is repaired by what it returns."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import psutil

from tests.chaos.parts import Part, Parts
from tests.chaos.proxy import Mode, Proxy, StopPoint

Fault: TypeAlias = Callable[[Parts, random.Random], Awaitable[None]]
"""Disturbs the pipeline, and repairs it before it returns."""

_STEP_WAIT = 4.0
STEPS: Mapping[str, tuple[str, str]] = {
    "claim": ("postgres", r"^EXECUTE INSERT INTO message_status .*'completed'"),
    "failure": ("postgres", r"^EXECUTE INSERT INTO message_status .*'failed'"),
    "dead-status": ("postgres", r"^EXECUTE .*SET status = 'dlq'"),
    "commit": ("postgres", r"^QUERY COMMIT"),
    "dead-publish": ("nats", r"^PUB messages\.dlq\."),
    "ack": ("nats", r"^PUB \$JS\.ACK\.\S+$"),
    "pull": ("nats", r"^PUB \$JS\.API\.CONSUMER\.MSG\.NEXT\."),
}
"""The steps of a worker, by the server that it talks to."""


def part_of(parts: Parts, kind: str, chance: random.Random) -> Part:
    """One of the parts of a kind: api, worker, housekeeper, nats or postgres."""
    return chance.choice([each for each in parts.all if each.name.startswith(kind)])


def link_of(parts: Parts, client: str, server: str, chance: random.Random) -> Proxy:
    """One of the links between two kinds of parts."""
    names = sorted(each for each in parts.links if each.startswith(client) and f"-{server}" in each)
    return parts.links[chance.choice(names)]


def _kill(kind: str) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        part = part_of(parts, kind, chance)
        async with part.disturbed:
            await part.kill()
            await asyncio.sleep(chance.uniform(0, 0.5))
            await part.start()

    return fault


def _pause(kind: str) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        part = part_of(parts, kind, chance)
        async with part.disturbed:
            part.signal_all(signal.SIGSTOP)
            # Up to more than the ack wait: then messages are also delivered to the other worker.
            await asyncio.sleep(chance.choice([0.3, 1.0, 4.0]))
            part.signal_all(signal.SIGCONT)

    return fault


def _restart(kind: str) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        part = part_of(parts, kind, chance)
        async with part.disturbed:
            await part.stop()
            await part.start()

    return fault


async def _crash_session(parts: Parts, chance: random.Random) -> None:
    """Kill one session of PostgreSQL: the server ends all of them and recovers."""
    async with parts.postgres.disturbed:
        if sessions := parts.postgres.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(sessions).kill()
        await asyncio.sleep(0.5)


def _disturb(client: str, server: str, mode: Mode) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        link = link_of(parts, client, server, chance)
        async with link.disturbed:
            await link.change(mode, delay=chance.uniform(0.02, 0.3))
            await asyncio.sleep(chance.choice([0.2, 1.0, 3.0]))
            if mode is Mode.HALF_OPEN and chance.random() < 0.5:
                link.reset()
            await link.change(Mode.OPEN)

    return fault


def _reset(client: str, server: str) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        for _ in range(chance.randrange(1, 4)):
            link_of(parts, client, server, chance).reset()
            await asyncio.sleep(chance.uniform(0, 0.3))

    return fault


def _stop_at(step: str) -> Fault:
    async def fault(parts: Parts, chance: random.Random) -> None:
        server, pattern = STEPS[step]
        worker = chance.choice(parts.workers)
        links = [link for name, link in parts.links.items() if name.startswith(f"{worker.name}-{server}")]
        point = StopPoint(
            pattern, chance.randrange(1, 4), chance.random() < 0.5, lambda: worker.signal_all(signal.SIGKILL)
        )
        async with worker.disturbed:
            for link in links:
                link.stop_point = point
            # If the worker does not get to the step in time, the fault has no effect.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STEP_WAIT):
                    await point.reached.wait()
            for link in links:
                link.stop_point = None
            if point.reached.is_set():
                await worker.process.wait()
                await worker.start()

    return fault


async def kill_leader(parts: Parts, chance: random.Random) -> None:
    """Kill the server of a cluster that leads the stream, or one of them if there is no leader now."""
    from tests.chaos.cluster import leader_of

    name = await leader_of(parts, chance.choice(["MESSAGES", "MESSAGESDLQ"]))
    part = parts.part(name) if name else part_of(parts, "nats", chance)
    async with part.disturbed:
        await part.kill()
        await asyncio.sleep(chance.uniform(0, 2))
        await part.start()


_LINKS = (("api", "nats"), ("worker", "nats"), ("worker", "postgres"))
FAULTS: dict[str, Fault] = {
    **{f"kill {kind}": _kill(kind) for kind in ("api", "worker", "nats", "postgres")},
    **{f"pause {kind}": _pause(kind) for kind in ("api", "worker", "nats", "postgres")},
    **{f"restart {kind}": _restart(kind) for kind in ("api", "worker", "nats", "postgres")},
    "kill housekeeper": _kill("housekeeper"),
    "pause housekeeper": _pause("housekeeper"),
    "kill a session of postgres": _crash_session,
    **{
        f"{mode} {client}-{server}": _disturb(client, server, mode)
        for client, server in _LINKS
        for mode in (Mode.SLOW, Mode.CUT, Mode.HALF_OPEN)
    },
    **{f"reset {client}-{server}": _reset(client, server) for client, server in _LINKS},
    **{f"kill worker at {step}": _stop_at(step) for step in STEPS},
}
"""All faults of a pipeline with one nats-server, by name."""
CLUSTER_FAULTS: dict[str, Fault] = {**FAULTS, "kill nats leader": kill_leader}
