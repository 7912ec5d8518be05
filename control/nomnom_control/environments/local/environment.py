"""The local environment: a client of the instance's supervisor, which it can start."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import msgspec

import nomnom
from nomnom.errors import NomnomError
from nomnom.scaling import LOCAL_LIMIT, ScalingPolicy
from nomnom.schema import Schema, load_schema
from nomnom.settings import HIDDEN, SERVICES, show_variables
from nomnom.settings.streams import StreamSettings
from nomnom.settings.tokens import first_token
from nomnom_control.environments import (
    HOUSEKEEPER,
    WORKER,
    Component,
    Endpoints,
    Environment,
    Health,
    LogLine,
    Progress,
    Replica,
    Revision,
    Scaling,
    ScalingSample,
    StartOption,
    Step,
)
from nomnom_control.environments.local.channel import NotRunning, call, request
from nomnom_control.environments.local.instance import PORTS, Instance
from nomnom_control.environments.local.log_reader import follow_logs
from nomnom_control.environments.local.servers import PostgresServer
from nomnom_control.environments.local.variables import component_variables
from nomnom_control.environments.variables import Variables, declaration_of
from nomnom_control.errors import ControlError
from nomnom_control.http_client import HttpClient, HttpError

COMPONENTS = ("api", "nats", WORKER, "postgres", "dashboard", HOUSEKEEPER)
_START = 120.0
ERROR = b"error "
"""Begins the line, on the supervisor's standard output, with the error that it did not start for."""
_PORT_LABELS = {
    "api": "API",
    "dashboard": "Dashboard API",
    "page": "Dashboard page",
    "nats": "NATS",
    "nats_monitor": "NATS monitoring",
    "postgres": "PostgreSQL",
}
_POLICY_LABELS = {
    "minimum": "Minimum workers",
    "maximum": "Maximum workers",
    "threshold": "Target lag per worker",
    "cooldown": "Cooldown in seconds",
}


class LocalEnvironment(Environment):
    """The pipeline in one directory of this machine."""

    kind = "local"
    worker_limit = LOCAL_LIMIT

    def __init__(self, folder: Path | None = None, options: Mapping[str, str] | None = None) -> None:
        self.instance = Instance(folder)
        self.name = "local"
        self.location = str(self.instance.folder)
        self.selector = () if folder is None else ("--dir", str(folder))
        self._options = dict(options or {})

    async def _call(self, name: str, **arguments: Any) -> Any:
        return await call(self.instance.socket, name, arguments)

    async def components(self) -> list[Component]:
        try:
            status = await self._call("status")
        except NotRunning:
            return [Component(name, 0, 0, Health.STOPPED, detail="not running") for name in COMPONENTS]
        async with HttpClient(2) as client:
            details = await asyncio.gather(*(_readiness(client, each["port"]) for each in status["services"]))
        found = [
            _server_component("nats", status["servers"]["nats"]),
            _server_component("postgres", status["servers"]["postgres"]),
        ]
        for name in SERVICES:
            replicas = [
                Replica(
                    each["name"],
                    "running" if each["pid"] else "exited",
                    ready,
                    datetime.fromisoformat(each["started_at"]),
                    each["restarts"],
                    detail,
                )
                for each, (ready, detail) in zip(status["services"], details, strict=True)
                if each["component"] == name
            ]
            found.append(_service_component(name, status["desired"][name], tuple(replicas), status["scaling"]))
        return sorted(found, key=lambda each: COMPONENTS.index(each.name))

    async def endpoints(self) -> Endpoints:
        ports = (await self._call("status"))["ports"]
        postgres = PostgresServer(self.instance.folder / "postgres", ports["postgres"], self.instance.log("postgres"))
        return Endpoints(
            api=f"http://127.0.0.1:{ports['api']}",
            nats=f"nats://127.0.0.1:{ports['nats']}",
            nats_monitor=f"http://127.0.0.1:{ports['nats_monitor']}",
            database=postgres.url,
            dashboard=f"http://127.0.0.1:{ports['page']}",
            api_token=first_token((await self.variables("api")).given.get("NOMNOM_API_TOKENS", "")),
        )

    async def streams(self) -> StreamSettings:
        return self.instance.load().streams

    async def schema(self) -> Schema:
        return load_schema(self.instance.load().schema)

    async def metrics(self, component: str) -> dict[str, str]:
        services = [each for each in (await self._call("status"))["services"] if each["component"] == component]
        texts: dict[str, str] = {}
        async with HttpClient(2) as client:
            for each in services:
                try:
                    answer = await client.get(f"http://127.0.0.1:{each['port']}/metrics")
                except HttpError:
                    continue
                texts[each["name"]] = answer.text
        return texts

    def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        if unknown := [name for name in components if name not in COMPONENTS]:
            raise ControlError(f"unknown component {unknown[0]!r}; available: {', '.join(COMPONENTS)}")
        paths = {name: self.instance.log(name) for name in components or COMPONENTS}
        return follow_logs(paths, follow=follow, tail=tail)

    async def scaling(self) -> Scaling:
        now = await self._call("scaling")
        ready = sum(each.ready for each in await self.components() if each.name == WORKER)
        decided = now["decided_at"]
        return Scaling(
            policy=ScalingPolicy(**now["policy"]),
            lag=now["lag"],
            desired=now["desired"],
            actual=now["actual"],
            ready=ready,
            paused=now["paused"],
            decided_at=datetime.fromisoformat(decided) if decided else None,
            decision=now["decision"],
        )

    async def scaling_history(self) -> list[ScalingSample]:
        return msgspec.convert(await self._call("history"), list[ScalingSample])

    async def set_scaling_policy(self, policy: ScalingPolicy) -> None:
        await self._call("policy", **asdict(policy))

    async def scale(self, component: str, replicas: int) -> None:
        if component != WORKER:
            raise ControlError(f"{component} cannot be scaled in the local environment; only {WORKER} can")
        await self._call("scale", replicas=replicas)

    async def pause_autoscaling(self) -> None:
        await self._call("scale")

    async def resume_autoscaling(self) -> None:
        await self._call("scale", auto=True)

    async def restart(self, component: str) -> AsyncIterator[Progress]:
        async for each in self._progress("restart", component=component):
            yield each

    async def variables(self, component: str) -> Variables:
        declaration_of(component)
        state = self.instance.load()
        names = ("nats", "nats_monitor", "postgres")
        nats, monitor, postgres = (state.ports.get(name, PORTS[name]) for name in names)
        servers = {
            "NATS_URL": f"nats://127.0.0.1:{nats}",
            "NATS_MONITOR_URL": f"http://127.0.0.1:{monitor}",
            "DATABASE_URL": f"postgresql://postgres:{HIDDEN}@127.0.0.1:{postgres}/nomnom",
        }
        return component_variables(component, state, servers)

    async def roll_out(self, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        merged = {**self.instance.load().revision(component), **changes}
        merged = {name: value for name, value in merged.items() if value}
        async for each in self._progress("configure", component=component, variables=merged, cause=cause):
            yield each

    async def history(self, component: str) -> list[Revision]:
        revisions = self.instance.load().revisions.get(component, [])
        return [replace(each, variables=show_variables(component, each.variables)) for each in revisions]

    async def rollback(self, component: str, revision: int | None = None) -> AsyncIterator[Progress]:
        revisions = self.instance.load().revisions.get(component, [])
        earlier = [each for each in revisions if not each.current and revision in (None, each.number)]
        if not earlier:
            numbers = ", ".join(str(each.number) for each in revisions) or "none"
            raise ControlError(
                f"{component} has no revision {revision or 'before the current one'}; available: {numbers}"
            )
        chosen = earlier[0]
        cause = f"rollback to revision {chosen.number}"
        variables = dict(chosen.variables)
        async for each in self._progress("configure", component=component, variables=variables, cause=cause):
            yield each

    async def _progress(self, name: str, **arguments: Any) -> AsyncIterator[Progress]:
        async for each in request(self.instance.socket, name, arguments):
            if isinstance(each, Progress):
                yield each

    def start_options(self) -> Sequence[StartOption]:
        state = self.instance.load()
        chosen = self._options.get("schema") or state.schema
        ports = [
            StartOption(
                name,
                f"{_PORT_LABELS[name]} port",
                self._options.get(name, ""),
                f"default: {state.ports.get(name, usual)} if free, otherwise any free port",
                _check_port,
            )
            for name, usual in PORTS.items()
        ]
        policies = [
            StartOption(
                name,
                label,
                self._options.get(name) or f"{getattr(state.policy, name):g}",
                "autoscaling policy of the workers",
                _check_number,
            )
            for name, label in _POLICY_LABELS.items()
        ]
        return (
            StartOption("schema", "Schema", chosen, "tpch, ecommerce or path to a file", _check_schema),
            *ports,
            *policies,
        )

    def with_options(self, values: Mapping[str, str]) -> LocalEnvironment:
        folder = None if not self.selector else self.instance.folder
        return LocalEnvironment(folder, {**self._options, **values})

    def plan(self, operation: str) -> Sequence[str]:
        folder = self.instance.folder
        steps = {
            "start": (
                f"start nats-server and PostgreSQL in {folder}",
                "set up streams and tables",
                "start the API, the dashboard and the housekeeper",
                "start the autoscaler, which starts workers as needed",
            ),
            "stop": (
                "stop the API, the dashboard and the housekeeper",
                "stop the workers",
                "stop PostgreSQL and nats-server",
                f"keep the data in {folder}",
            ),
            "destroy": ("stop everything", f"remove {folder}"),
        }
        return steps.get(operation, ())

    def losses(self) -> Sequence[str]:
        return (f"{self.instance.folder}: every table, every stream with its messages and dead letters, all logs",)

    async def start(self) -> AsyncIterator[Progress]:
        try:
            await self._call("status")
        except NotRunning:
            pass
        else:
            yield Progress("start", Step.SKIPPED, "already running")
            return
        command = [sys.executable, "-m", "nomnom_control.environments.local", "--dir", str(self.instance.folder)]
        if schema := self._options.get("schema"):
            command += ["--schema", schema]
        for flag, known in (("--port", PORTS), ("--policy", _POLICY_LABELS)):
            command += [f"{flag}={name}={value}" for name in known if (value := self._options.get(name))]
        # The supervisor keeps running after this process has ended; 'nomnom down' stops it.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(_START):
            while line := await process.stdout.readline():
                if line == b"ready\n":
                    return
                if line.startswith(ERROR):
                    # Otherwise its exit would be reported to an event loop that is closed by then.
                    await process.wait()
                    raise ControlError(msgspec.json.decode(line.removeprefix(ERROR), type=str))
                yield msgspec.json.decode(line, type=Progress)
            problem = (await process.stderr.read()).decode(errors="replace").strip()
            await process.wait()
        raise ControlError(f"the supervisor ended before the pipeline was ready: {problem or 'it wrote nothing'}")

    async def stop(self) -> AsyncIterator[Progress]:
        yield Progress("stop", Step.STARTED)
        await self._call("stop")
        async with asyncio.timeout(_START):
            while self.instance.socket.exists():  # noqa: ASYNC110 (another process removes it)
                await asyncio.sleep(0.1)
        yield Progress("stop", Step.DONE)

    async def destroy(self) -> AsyncIterator[Progress]:
        try:
            async for each in self.stop():
                yield each
        except NotRunning:
            pass
        yield Progress("remove the data", Step.STARTED, str(self.instance.folder))
        try:
            await asyncio.to_thread(shutil.rmtree, self.instance.folder)
        except OSError as error:
            text = f"{self.instance.folder} could not be removed completely: {error}; remove the rest"
            raise ControlError(text) from error
        yield Progress("remove the data", Step.DONE)


async def _readiness(client: HttpClient, port: int) -> tuple[bool, str]:
    """Whether a service is ready, and why it is not or only in part."""
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/ready")
    except HttpError as error:
        return False, f"no response: {error}"
    ready = answer.status == 200
    partly = ready and b'"degraded"' in answer.content
    return ready, answer.text[:300] if partly or not ready else ""


def _server_component(name: str, server: Mapping[str, Any]) -> Component:
    running = server["pid"] is not None
    detail = (server.get("problem") or "") if running else "exited unexpectedly; restarting"
    health = Health.FAILED if detail else Health.HEALTHY
    return Component(name, 1, int(running), health, server["version"], detail)


def _service_component(name: str, desired: int, replicas: tuple[Replica, ...], scaling: Mapping[str, Any]) -> Component:
    ready = sum(each.ready for each in replicas)
    detail = next((each.detail for each in replicas if each.detail), "")
    if desired == 0 and not replicas:
        health, detail = Health.STOPPED, _reason_for_zero(scaling) if name == WORKER else ""
    elif ready >= desired:
        health = Health.DEGRADED if detail else Health.HEALTHY
    else:
        health = Health.DEGRADED if ready else Health.STARTING
    return Component(name, desired, ready, health, nomnom.__version__, detail, replicas)


def _reason_for_zero(scaling: Mapping[str, Any]) -> str:
    lag = "unknown" if scaling["lag"] is None else f"{scaling['lag']:,}"
    if scaling["paused"]:
        return f"held at 0 by hand; lag {lag}"
    return "scaled to zero (no lag)" if scaling["lag"] == 0 else f"scaled to zero; lag {lag}"


def _check_port(text: str) -> str | None:
    return (
        None if not text or (text.isdecimal() and 0 < int(text) < 65536) else "expected a port number from 1 to 65535"
    )


def _check_number(text: str) -> str | None:
    try:
        number = float(text)
    except ValueError:
        return "expected a number"
    return None if 0 <= number < inf else "expected a number of at least 0"


def _check_schema(text: str) -> str | None:
    try:
        load_schema(text)
    except NomnomError as error:
        return str(error)
    return None
