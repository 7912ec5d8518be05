"""The logs of pods as one stream: existing lines, then new ones, across restarts and replaced pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nomnom.connections.errors import Unavailable
from nomnom_control.environments import LogLine
from nomnom_control.environments.cluster.api import ClusterRefused, Object
from nomnom_control.environments.cluster.release import PARTS, Release, component_of
from nomnom_control.environments.log_lines import parse_line

_POLL = 2.0
_QUEUE_SIZE = 1000
_ALL = 10_000
"""Limit of lines per pod if all are requested: the API server sends them in one response."""


async def follow_pods(
    release: Release, components: Sequence[str], *, follow: bool, tail: int | None
) -> AsyncIterator[LogLine]:
    """The last ``tail`` lines of these components' pods by time (None: all), then, with ``follow``, each new line.

    The lines of a restarted container include those of its previous run. Raises ControlError.
    """
    names = tuple(components or PARTS)
    pods = [pod for each in names for pod in await release.pods(each)]
    texts = await asyncio.gather(*(_ended_lines(release, pod, tail) for pod in pods))
    ordered = sorted((line for text in texts for _, line in text), key=_moment)
    for each in ordered if tail is None else ordered[len(ordered) - min(tail, len(ordered)) :]:
        yield each
    if not follow:
        return
    last = {pod["metadata"]["name"]: lines[-1][0] for pod, lines in zip(pods, texts, strict=True) if lines}
    queue: asyncio.Queue[LogLine] = asyncio.Queue(_QUEUE_SIZE)
    watcher = asyncio.ensure_future(_watch(release, names, queue, last))
    receiver = asyncio.ensure_future(queue.get())
    try:
        while True:
            await asyncio.wait({receiver, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not receiver.done():
                watcher.result()
                return
            line = receiver.result()
            receiver = asyncio.ensure_future(queue.get())
            yield line
    finally:
        watcher.cancel()
        receiver.cancel()
        await asyncio.gather(watcher, receiver, return_exceptions=True)


async def _watch(
    release: Release, components: Sequence[str], queue: asyncio.Queue[LogLine], last: dict[str, datetime]
) -> None:
    """Run one reader per pod; retry while the cluster is unavailable."""
    readers: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            try:
                pods = [pod for each in components for pod in await release.pods(each)]
            except Unavailable:
                pods = []
            for pod in pods:
                name = pod["metadata"]["name"]
                started = any(
                    (each.get("state") or {}).get("running") for each in pod["status"].get("containerStatuses") or []
                )
                reader = readers.get(name)
                if started and (reader is None or reader.done()):
                    readers[name] = asyncio.ensure_future(_read(release, pod, queue, last))
            await asyncio.sleep(_POLL)
    finally:
        for each in readers.values():
            each.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _read(release: Release, pod: Object, queue: asyncio.Queue[LogLine], last: dict[str, datetime]) -> None:
    """Read the log of one run of a container, continuing after the last line that was read."""
    name = pod["metadata"]["name"]
    since = last.get(name)
    parameters = {"follow": "true", "timestamps": "true"}
    if since is not None:
        # sinceTime has a resolution of seconds: lines of that second that were read before are skipped below.
        parameters["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        async for text in release.cluster.lines(release.path("v1/pods", f"{name}/log"), **parameters):
            stamp, line = _line(component_of(pod), name, text)
            if since is not None and stamp <= since:
                continue
            last[name] = stamp
            await queue.put(line)
    except (ClusterRefused, Unavailable):
        # The pod is gone, or the API server is unavailable: the watcher starts a new reader when both are back.
        return


async def _ended_lines(release: Release, pod: Object, tail: int | None) -> list[tuple[datetime, LogLine]]:
    name = pod["metadata"]["name"]
    component = component_of(pod)
    path = release.path("v1/pods", f"{name}/log")
    parameters = {"timestamps": "true", "tailLines": str(_ALL if tail is None else tail)}
    restarted = any(each.get("restartCount") for each in pod.get("status", {}).get("containerStatuses") or [])
    lines: list[tuple[datetime, LogLine]] = []
    for each in ({"previous": "true"}, {}) if restarted else ({},):
        try:
            text = await release.cluster.text(path, **parameters, **each)
        except ClusterRefused:
            # It has not started, or its node deleted the log of the previous run.
            continue
        lines += [_line(component, name, line) for line in text.splitlines()]
    return lines


def _line(component: str, pod: str, text: str) -> tuple[datetime, LogLine]:
    """Parse a line that begins with the API server's time stamp; a structured line's own time is more precise."""
    stamp, _, rest = text.partition(" ")
    try:
        # Nanoseconds have more digits than Python accepts.
        moment = datetime.fromisoformat(f"{stamp.removesuffix('Z')[:26]}+00:00")
    except ValueError:
        moment, rest = datetime.now(UTC) - timedelta(microseconds=1), text
    parsed = parse_line(component, rest)
    return moment, replace(parsed, replica=pod, at=moment if parsed.at is None or not parsed.fields else parsed.at)


def _moment(line: LogLine) -> float:
    return line.at.timestamp() if line.at else 0.0
