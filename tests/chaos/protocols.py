"""What a client sends, cut into steps: whole NATS commands, and PostgreSQL messages up to the next Sync or Flush.

nats-py and asyncpg contain no parser of the client's side, and a proxy has to see where a step begins and ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

_SHOWN = 32


class Parser(Protocol):
    """Cuts a stream of bytes into steps."""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str]]:
        """Add bytes; yields each complete step with its description."""
        ...


class NatsCommands:
    """``PUB <subject> <payload>`` for a message with or without headers; otherwise the command's first word."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str]]:
        """Yield commands."""
        self._data += data
        while (end := self._data.find(b"\r\n")) >= 0:
            words = self._data[:end].split()
            size, text = end + 2, words[0].decode(errors="replace").upper() if words else ""
            if text in ("PUB", "HPUB"):
                size += int(words[-1]) + 2
                if len(self._data) < size:
                    return
                headers = int(words[-2]) if text == "HPUB" else 0
                payload = self._data[end + 2 + headers : size - 2]
                text = f"PUB {words[1].decode()} {payload[:_SHOWN].decode(errors='replace')}".strip()
            command, self._data = self._data[:size], self._data[size:]
            yield command, text


class PostgresRequests:
    """``QUERY <SQL>``, ``PARSE <SQL>`` and ``EXECUTE <SQL>``; otherwise the type of the last message."""

    def __init__(self) -> None:
        self._data, self._request = b"", b""
        self._started = False
        self._text = ""
        self._statements: dict[bytes, str] = {}

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str]]:
        """Yield requests. Before the startup message, messages have no type (protocol 3.0, "Message Formats")."""
        self._data += data
        while True:
            typed = 1 if self._started else 0
            if len(self._data) < typed + 4:
                return
            size = typed + struct.unpack_from("!I", self._data, typed)[0]
            if len(self._data) < size:
                return
            message, self._data = self._data[:size], self._data[size:]
            if not self._started:
                # A request for TLS (80877103) is answered first, and the startup message follows.
                self._started = struct.unpack_from("!I", message, 4)[0] != 80877103
                yield message, "START"
                continue
            self._request += message
            kind = message[:1]
            self._describe(kind, message[5:])
            if kind in (b"Q", b"S", b"H", b"X", b"p"):
                request, text = self._request, self._text or kind.decode()
                self._request, self._text = b"", ""
                yield request, text

    def _describe(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self._text = f"QUERY {_sql(body)}"
        elif kind == b"P":
            name, _, rest = body.partition(b"\0")
            self._statements[name] = _sql(rest)
            self._text = f"PARSE {self._statements[name]}"
        elif kind == b"B":
            statement = body.split(b"\0", 2)[1]
            self._text = f"EXECUTE {self._statements.get(statement, '')}"


def _sql(text: bytes) -> str:
    return " ".join(text.partition(b"\0")[0].decode(errors="replace").split())
