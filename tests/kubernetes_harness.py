"""An API server of the tests' own, with TLS, credentials and a port-forward; kubeconfigs that lead to it; a proxy."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PLUGIN_VERSION = "client.authentication.k8s.io/v1"
BIG = 3 * 1024 * 1024 + 17
"""Bytes of the one frame that the port-forward answers ``big`` with."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Both as files."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_text(self.certificate)
        key.write_text(self.key)
        return certificate, key


class Authority:
    """A certificate authority."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        # It lacks identifiers of its key, like the authorities of many clusters: Python's strict mode rejects it.
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = _pem(self._certificate)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def issue(self, name: str, *hosts: str) -> Pair:
        """A certificate for a server with these hosts, or for a client without."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False
            )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(builder.sign(self._key, hashes.SHA256())), private.decode())


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Request:
    """What the API server got."""

    method: str
    path: str
    query: dict[str, str]
    form: str
    body: Any
    user: str


@dataclass
class ApiServer:
    """It knows these tokens, and the clients that its authority certified."""

    authority: Authority
    tokens: set[str] = field(default_factory=lambda: {"good"})
    requests: list[Request] = field(default_factory=list[Request])
    objects: dict[str, Any] = field(default_factory=dict[str, Any])
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    log: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue[bytes | None])
    """What a followed log sends; None ends it."""
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Requests of /silent are answered when it is set."""
    received: int = 0
    """Bytes that came through port-forwards."""
    port: int = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self, folder: Path, *hosts: str) -> AsyncIterator[ApiServer]:
        """Serve on a port of loopback with a certificate for these hosts (127.0.0.1 by default)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("server", *(hosts or ("127.0.0.1",))).write(folder, "server"))
        context.load_verify_locations(cadata=self.authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self.silent.set()
            await self.log.put(None)
            await runner.cleanup()

    def _user(self, request: web.Request) -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.tokens:
            return f"token {token}"
        assert request.transport is not None
        found = request.transport.get_extra_info("peercert")
        return f"certificate {found['subject'][0][0][1]}" if found else None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append(
            Request(request.method, request.path, dict(request.query), request.content_type, body, user or "")
        )
        if user is None:
            return _status(401, "Unauthorized")
        if request.path in self.statuses:
            return _status(self.statuses[request.path], f"{request.path} is not for you")
        if request.path.endswith("/portforward"):
            return await self._forward(request)
        if request.path.endswith("/log"):
            return await self._log(request)
        if request.path == "/silent":
            await self.silent.wait()
        if request.method in ("POST", "PATCH"):
            return web.json_response(body if isinstance(body, dict) else {})
        if request.path not in self.objects:
            return _status(404, f"{request.path} not found")
        return web.json_response(self.objects[request.path])

    async def _log(self, request: web.Request) -> web.StreamResponse:
        if "follow" not in request.query:
            return web.Response(body="ä line\nand \N{WHITE HEAVY CHECK MARK}\n".encode() + b"\xff\n")
        response = web.StreamResponse()
        await response.prepare(request)
        while chunk := await self.log.get():
            await response.write(chunk)
        return response

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        """Echo, but: ``big`` brings one big frame, ``fail`` an error of the node, ``end`` an orderly end."""
        websocket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"], max_msg_size=0)
        await websocket.prepare(request)
        assert websocket.ws_protocol == "v4.channel.k8s.io"
        port = int(request.query["ports"]).to_bytes(2, "little")
        await websocket.send_bytes(b"\0" + port)
        await websocket.send_bytes(b"\1" + port)
        async for message in websocket:
            assert message.type is WSMsgType.BINARY
            channel, data = message.data[:1], message.data[1:]
            assert channel == b"\0"
            self.received += len(data)
            if data == b"big":
                await websocket.send_bytes(b"\0" + b"x" * BIG)
            elif data == b"fail":
                await websocket.send_bytes(b"\1nothing listens there")
            elif data == b"end":
                await websocket.close()
            else:
                await websocket.send_bytes(b"\0" + data)
        return websocket


def _status(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": message}, status=status)


def kubeconfig(
    path: Path, cluster: dict[str, Any], user: dict[str, Any], *, context: str = "it", current: str | None = "it"
) -> Path:
    """Write a kubeconfig of one context."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": f"{context}-cluster", "cluster": cluster}],
        "users": [{"name": f"{context}-user", "user": user}],
        "contexts": [{"name": context, "context": {"cluster": f"{context}-cluster", "user": f"{context}-user"}}],
    }
    path.write_text(yaml.safe_dump({**content, **({"current-context": current} if current else {})}))
    return path


def inline(text: str) -> str:
    """A certificate or key as kubeconfigs hold them."""
    return base64.b64encode(text.encode()).decode()


@dataclass
class Plugin:
    """An exec plugin: it returns what it was given last, and keeps what it was asked."""

    folder: Path

    @property
    def user(self) -> dict[str, Any]:
        """The kubeconfig's user; the command is relative to the kubeconfig."""
        return {"exec": {"apiVersion": PLUGIN_VERSION, "command": "./plugin", "args": ["a"], "env": None}}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What each run was asked."""
        file = self.folder / "asked"
        return [json.loads(each) for each in file.read_text().splitlines()] if file.exists() else []

    def write(self, status: dict[str, Any] | None, failure: str = "") -> None:
        """Return these credentials from now on, or fail."""
        credential = {"apiVersion": PLUGIN_VERSION, "kind": "ExecCredential", "status": status}
        (self.folder / "credentials").write_text(json.dumps(credential))
        end = f"echo '{failure}' >&2; exit 3" if failure else f"cat '{self.folder}/credentials'"
        program = self.folder / "plugin"
        # A plugin that asks something gets an end of file, and not the keys of the app.
        program.write_text(
            f"#!/bin/sh\nread answer && exit 9\necho \"$KUBERNETES_EXEC_INFO\" >> '{self.folder}/asked'\n{end}\n"
        )
        program.chmod(0o755)


@dataclass
class Proxy:
    """A proxy that tunnels; with ``credentials`` (a header) for those alone who present them."""

    targets: list[str] = field(default_factory=list[str])
    credentials: str = ""
    port: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Serve on a port of loopback."""
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        if method != "CONNECT" or self.credentials not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        self.targets.append(target)
        _, _, port = target.rpartition(":")
        # Every name leads to this machine.
        there, back = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            writer.close()
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
