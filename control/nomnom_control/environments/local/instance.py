"""A local instance's directory: its layout, its lock, its ports and the state kept between runs."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
from filelock import AsyncFileLock, FileLock, Timeout

from nomnom.files import make_folder, replace_file
from nomnom.scaling import ScalingPolicy, local_policy
from nomnom.settings import ProgramSettings, Settings
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments import Revision
from nomnom_control.errors import ControlError

PORTS = {"api": 8080, "dashboard": 3000, "page": 5173, "nats": 4222, "nats_monitor": 8222, "postgres": 5432}
"""The usual port of each server."""
_STARTING = 60.0


class InstanceError(ControlError):
    """An instance's directory cannot be used."""


class AlreadyRunning(InstanceError):  # noqa: N818 (a state more than an error)
    """Another process is running this instance."""


class State(msgspec.Struct, kw_only=True):
    """The state kept between runs."""

    schema: str = "tpch"
    ports: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    pid: int | None = None
    policy: ScalingPolicy = msgspec.field(default_factory=local_policy)
    pinned: int | None = None
    """The number of workers set by hand; None lets the policy decide."""
    variables: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Settings in the environment of the present run's ``nomnom up``. Those of the streams are kept for later runs."""
    revisions: dict[str, list[Revision]] = msgspec.field(default_factory=dict[str, list[Revision]])

    @property
    def streams(self) -> StreamSettings:
        """The names of the streams and the consumer."""
        return Settings.read(self.variables).streams

    def revision(self, component: str) -> dict[str, str]:
        """The variables of a component's present revision."""
        return next((dict(each.variables) for each in self.revisions.get(component, []) if each.current), {})

    def revise(self, component: str, variables: dict[str, str], cause: str) -> Revision:
        """Make a new present revision; the last twenty are kept."""
        earlier = [replace(each, current=False) for each in self.revisions.get(component, [])]
        number = 1 + max((each.number for each in earlier), default=0)
        latest = Revision(number, datetime.now(UTC), cause, current=True, variables=variables)
        self.revisions[component] = [latest, *earlier][:20]
        return latest


class Instance:
    """One directory: data, logs, state, lock and control socket."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()).expanduser().resolve()
        self._lock = FileLock(self.folder / "lock")

    @property
    def logs(self) -> Path:
        """The folder of the log files, one per component."""
        return self.folder / "logs"

    @property
    def socket(self) -> Path:
        """The control socket. Its name is a hash, because the path of a socket is limited to about 100 bytes."""
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"nomnom-{os.getuid()}-{name}.sock"

    def log(self, component: str) -> Path:
        """A component's log file."""
        return self.logs / f"{component}.log"

    def load(self) -> State:
        """The saved state, or a new one. Raises InstanceError if the file cannot be read."""
        try:
            return msgspec.convert(_renamed(msgspec.json.decode((self.folder / "state.json").read_bytes())), State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.DecodeError) as error:
            raise InstanceError(f"cannot read {self.folder / 'state.json'}: {error}; move or delete it") from error

    def save(self, state: State) -> None:
        """Replace the state atomically and durably; only its owner can read it."""
        replace_file(self.folder / "state.json", msgspec.json.format(msgspec.json.encode(state)))

    def acquire(self) -> None:
        """Acquire the lock. Raises AlreadyRunning with the id of the other process, or InstanceError."""
        try:
            make_folder(self.folder)
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = self.load().pid
            raise AlreadyRunning(
                f"{self.folder} is already running (process {holder}); stop it with 'nomnom down' or use another --dir"
            ) from None
        except OSError as error:
            raise InstanceError(f"cannot use {self.folder}: {error}; choose another --dir") from error

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """A state of release 0.1 with the present names."""
    for old, new in (("rule", "policy"), ("held", "pinned")):
        if old in state:
            state[new] = state.pop(old)
    for revisions in state.get("revisions", {}).values():
        for each in revisions:
            if "settings" in each:
                each["variables"] = each.pop("settings")
    return state


def default_folder() -> Path:
    """NOMNOM_HOME, else the user's data directory. Root's is one that PostgreSQL's user can enter."""
    if home := ProgramSettings.from_environment().nomnom_home:
        return Path(home)
    return Path("/var/lib/nomnom") if os.geteuid() == 0 else platformdirs.user_data_path("nomnom")


@asynccontextmanager
async def starting() -> AsyncGenerator[None, None]:
    """Serialize starts on this machine: another one could choose the same port before this one listens on it.

    Gives up after :data:`_STARTING` seconds and proceeds without the lock.
    """
    lock = AsyncFileLock(Path(tempfile.gettempdir()) / f"nomnom-{os.getuid()}.starting", timeout=_STARTING)
    try:
        await lock.acquire()
    except Timeout:
        yield
        return
    try:
        yield
    finally:
        await lock.release()


def choose_ports(kept: dict[str, int], given: dict[str, int]) -> dict[str, int]:
    """A free port for each server: the given one, else that of the last run, else the default, else any.

    Raises InstanceError if a given port is in use.
    """
    if unknown := [name for name in given if name not in PORTS]:
        raise InstanceError(f"unknown server {unknown[0]!r}; available: {', '.join(PORTS)}")
    for name, port in given.items():
        if not is_free(port) or list(given.values()).count(port) > 1:
            raise InstanceError(
                f"port {port} for {name} is already in use; choose another one, or stop the program that uses it"
            )
    chosen = dict(given)
    for name, default in PORTS.items():
        if name in given:
            continue
        wishes = [port for port in (kept.get(name), default) if port and port not in chosen.values()]
        chosen[name] = next((port for port in wishes if is_free(port)), 0) or any_port()
    return chosen


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_port() -> int:
    """A free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
