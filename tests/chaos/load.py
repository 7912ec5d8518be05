"""The test's own clients: they post orders until each is accepted, and keep an account of every 202."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

MESSAGE, BATCH = "/api/ingest/message", "/api/ingest/batch"
_HOT = 5
_PAUSE = 0.08
_PATIENCE = 120.0
_RETRY = 0.1
_LINES = 10


@dataclass(frozen=True, slots=True)
class Record:
    """An order with content of its own. ``number`` orders the records of one client."""

    client: int
    number: int
    key: int
    invalid: bool = False

    @property
    def tag(self) -> str:
        """The comment, by which the record is found wherever it is."""
        return f"c{self.client}n{self.number}"

    @property
    def line(self) -> str:
        """The record as it is sent."""
        day = "2024-02-30" if self.invalid else "2024-01-01"
        return f"O|{self.key}|456|F|123.45|{day}|urgent|clerk1|1|{self.tag}"


@dataclass
class Ledger:
    """What the clients know."""

    accepted: dict[str, Record] = field(default_factory=dict[str, Record])
    """Records with a 202, by message ID."""
    trusted: dict[str, Record] = field(default_factory=dict[str, Record])
    """Records that count as accepted without a 202 (a control), by tag."""
    unknown: dict[str, Record] = field(default_factory=dict[str, Record])
    """Records that may or may not be accepted, by tag: posted without a key, and no 202 came back."""
    posts: int = 0
    answers: Counter[str] = field(default_factory=Counter[str])
    """Responses by status, and failed requests by error."""
    repeated: list[str] = field(default_factory=list[str])
    """Message IDs that two records got."""

    def accept(self, message_id: str, record: Record) -> None:
        """Note a 202."""
        if self.accepted.setdefault(message_id, record) != record:
            self.repeated.append(message_id)

    def copy(self) -> Ledger:
        """The state at this moment. What is accepted later is unknown in it."""
        return Ledger(dict(self.accepted), dict(self.trusted), dict(self.unknown), self.posts, Counter(self.answers))

    def forget_after(self, moment: Ledger) -> None:
        """Treat what was accepted after a moment (a power cut) as unknown."""
        for message_id in self.accepted.keys() - moment.accepted.keys():
            record = self.accepted.pop(message_id)
            self.unknown[record.tag] = record


class Load:
    """Clients that post to several APIs at a bounded rate until :meth:`stop`.

    ``trust_errors``: a control, a client that takes any response for an acceptance.
    """

    def __init__(
        self, apis: Callable[[], Sequence[str]], seed: int, clients: int = 6, *, trust_errors: bool = False
    ) -> None:
        self._apis, self._seed, self._clients = apis, seed, clients
        self._trust_errors = trust_errors
        self.ledger = Ledger()
        self.pause = _PAUSE
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = [0] * clients

    def start(self) -> None:
        """Start the clients."""
        self._stopping.clear()
        self._tasks = [asyncio.create_task(self._run(each), name=f"client {each}") for each in range(self._clients)]

    async def stop(self) -> None:
        """Complete the requests in progress and end."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def abandon(self) -> None:
        """End at once: the outcome of requests in progress is unknown."""
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise the error of a client that ended with one."""
        for each in self._tasks:
            if each.done() and not each.cancelled() and (error := each.exception()) is not None:
                raise error

    async def until_accepted(self, count: int, wait: float) -> bool:
        """Wait until that many more records are accepted; returns whether they were within ``wait`` seconds."""
        target = len(self.ledger.accepted) + count
        try:
            async with asyncio.timeout(wait):
                while len(self.ledger.accepted) < target:
                    self.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _run(self, client: int) -> None:
        chance = random.Random(f"{self._seed} client {client} {self._numbers[client]}")
        limits = httpx.Limits(max_keepalive_connections=4)
        async with httpx.AsyncClient(timeout=10, limits=limits, trust_env=False) as http:
            while not self._stopping.is_set():
                records = self._choose(client, chance)
                # Serial updates of one row need a key: a repeated post must not become a second message.
                keyed = any(each.key < self._first_key(client) for each in records) or chance.random() < 0.6
                await self._post(http, records, chance, str(uuid.UUID(int=chance.getrandbits(128))) if keyed else None)
                await asyncio.sleep(self.pause * chance.uniform(0.2, 1.8))

    def _first_key(self, client: int) -> int:
        return client * 10_000_000 + 1000

    def _choose(self, client: int, chance: random.Random) -> list[Record]:
        draw = chance.random()
        if draw < 0.35:
            return [self._new(client, client * 10_000_000 + 1 + chance.randrange(_HOT))]
        if draw < 0.45:
            return [self._new(client, None, invalid=True)]
        if draw < 0.75:
            return [self._new(client)]
        # One row at most once per batch: the lines of a repeated batch may be accepted in another order.
        hot = chance.sample(range(_HOT), chance.randrange(3))
        records = [self._new(client, client * 10_000_000 + 1 + each) for each in hot]
        return records + [self._new(client, invalid=chance.random() < 0.1) for _ in range(chance.randrange(2, _LINES))]

    def _new(self, client: int, key: int | None = None, *, invalid: bool = False) -> Record:
        self._numbers[client] += 1
        number = self._numbers[client]
        return Record(client, number, self._first_key(client) + number if key is None else key, invalid)

    async def _post(
        self, http: httpx.AsyncClient, records: list[Record], chance: random.Random, key: str | None
    ) -> None:
        """Post until accepted if there is a key, else once."""
        path = MESSAGE if len(records) == 1 else BATCH
        content = "\n".join(each.line for each in records)
        headers = {"content-type": "text/plain", **({"idempotency-key": key} if key else {})}
        left = {each.tag: each for each in records}
        self.ledger.unknown.update(left)
        async with asyncio.timeout(_PATIENCE):
            while True:
                self.ledger.posts += 1
                try:
                    answer = await http.post(chance.choice(self._apis()) + path, content=content, headers=headers)
                except httpx.HTTPError as error:
                    self.ledger.answers[type(error).__name__] += 1
                else:
                    self.ledger.answers[str(answer.status_code)] += 1
                    for record in self._accepted(answer, records):
                        left.pop(record.tag, None)
                        self.ledger.unknown.pop(record.tag, None)
                    if not left:
                        return
                    if self._trust_errors:
                        self.ledger.trusted.update(left)
                        for tag in left:
                            self.ledger.unknown.pop(tag, None)
                        return
                    if answer.status_code not in (202, 207, 429, 503):
                        raise AssertionError(f"unexpected response {answer.status_code}: {answer.text}")
                if key is None or self._stopping.is_set():
                    return
                await asyncio.sleep(_RETRY)

    def _accepted(self, answer: httpx.Response, records: list[Record]) -> list[Record]:
        """Note the records that a response accepted, and return them."""
        if answer.status_code not in (202, 207):
            return []
        body = answer.json()
        if "message_id" in body:
            pairs = [(body["message_id"], records[0])]
        elif "ids" in body:
            pairs = list(zip(body["ids"], records, strict=True))
        else:
            pairs = [(each["id"], records[each["line"] - 1]) for each in body.get("accepted", [])]
        for message_id, record in pairs:
            self.ledger.accept(message_id, record)
        return [record for _, record in pairs]
