"""The account: the place of every accepted record, found by the test's own reading of both servers."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from tests.chaos.load import Ledger, Record
from tests.chaos.parts import Parts, connect_nats

_SHOWN = 20


@dataclass
class Account:
    """Where the accepted records are. The lists have to be empty."""

    completed: int = 0
    superseded: int = 0
    dead: int = 0
    pending: int = 0
    unanswered: int = 0
    """Valid records among the dead letters because their worker was killed repeatedly (documented)."""
    leftover: int = 0
    """Processed messages that nats-server keeps in the work queue, at or below the consumer's ack floor: when it is
    killed, it may have stored the acknowledgement but not the deletion. They are never delivered again."""
    unexplained: int = 0
    """What ``nomnom account`` calls unexplained."""
    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    """Applied twice, or in two places."""
    wrong: list[str] = field(default_factory=list[str])
    """Not the last write, other content, or a wrong status."""

    @property
    def good(self) -> bool:
        """Whether nothing is lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.wrong)

    def figures(self) -> dict[str, Any]:
        """The figures, with the first problems of each kind."""
        found = asdict(self)
        for name in ("lost", "doubled", "wrong"):
            found[name] = {"count": len(found[name]), "first": found[name][:_SHOWN]}
        return found


@dataclass
class Places:
    """Everything that is stored, by message ID."""

    statuses: dict[str, asyncpg.Record]
    rows: dict[int, asyncpg.Record]
    """The orders by key."""
    applied: Counter[str]
    pending: dict[str, list[str]]
    leftover: Counter[str]
    """Messages in the stream that the consumer has passed."""
    dead: dict[str, list[tuple[str, str]]]
    """Payload and reason."""


async def settle(parts: Parts, wait: float = 60.0) -> bool:
    """Wait until no message is pending or unacknowledged; returns whether that was so within ``wait`` seconds."""
    try:
        async with asyncio.timeout(wait):
            while True:
                try:
                    client = await connect_nats(parts.nats_url)
                except (OSError, NatsError, TimeoutError):
                    await asyncio.sleep(0.2)
                    continue
                try:
                    consumer = await client.jetstream(timeout=5).consumer_info("MESSAGES", "workers")
                except (NatsError, TimeoutError):
                    consumer = None  # a cluster without a leader
                finally:
                    await client.close()
                if consumer is not None and not consumer.num_pending and not consumer.num_ack_pending:
                    return True
                await asyncio.sleep(0.2)
    except TimeoutError:
        return False


async def take_account(parts: Parts, ledger: Ledger) -> Account:
    """Compare the ledger with what is stored."""
    places = await _read(parts)
    account = Account()
    for message_id, record in ledger.accepted.items():
        _place(message_id, record, places, account)
    _check_trusted(ledger, places, account)
    _check_rows(ledger, places, account)
    account.doubled += [f"{each}: applied {number} times" for each, number in places.applied.items() if number > 1]
    account.doubled += [f"{each}: two records" for each in ledger.repeated]
    tags = Counter(each.tag for each in ledger.accepted.values())
    account.doubled += [f"{tag}: accepted as {number} messages" for tag, number in tags.items() if number > 1]
    await compare_with_program(parts, places, account)
    return account


async def compare_with_program(parts: Parts, places: Places, account: Account) -> None:
    """Compare with what ``nomnom account`` reports: the same messages at the same places, and losses if there are any.

    Messages whose posts had an unknown outcome are stored or not; both accounts count those that are.
    """
    async with await parts.session("account", parts.plan.folder / "account") as pipeline:
        found = await pipeline.account.read(trusted=0)
    account.unexplained = found.unexplained
    if account.lost:
        return
    states = Counter(each["status"] for each in places.statuses.values())
    expected = {
        "completed": states["completed"],
        "dead_letters": states["dlq"],
        "pending": sum(each not in places.statuses for each in places.pending),
        "unexplained": 0,
    }
    differing = {name: (number, getattr(found, name)) for name, number in expected.items()}
    account.wrong += [
        f"nomnom account: {name}: expected {number}, found {other}"
        for name, (number, other) in differing.items()
        if number != other
    ]


def _place(message_id: str, record: Record, places: Places, account: Account) -> None:
    name = f"{record.tag} ({message_id})"
    status = places.statuses.get(message_id)
    state = status["status"] if status is not None else None
    pending, dead = places.pending.get(message_id, []), places.dead.get(message_id, [])
    account.leftover += places.leftover[message_id]
    if any(payload != record.line for payload in [*pending, *(payload for payload, _ in dead)]):
        account.wrong.append(f"{name}: stored with other content")
    if status is not None and state == "completed":
        _place_completed(name, record, superseded=status["superseded"], number=places.applied[message_id], into=account)
        if dead:
            account.doubled.append(f"{name}: completed, and a dead letter")
        return
    if places.applied[message_id]:
        account.doubled.append(f"{name}: applied, with the status {state}")
    if dead:
        _place_dead(name, record, state, [reason for _, reason in dead], account)
        if pending:
            account.doubled.append(f"{name}: a dead letter, and pending")
    elif pending:
        account.pending += 1
    else:
        where = "passed by the consumer" if places.leftover[message_id] else "in neither stream"
        account.lost.append(f"{name}: status {state}, {where}")


def _place_completed(name: str, record: Record, *, superseded: bool, number: int, into: Account) -> None:
    if record.invalid:
        into.wrong.append(f"{name}: invalid, but completed")
    if superseded:
        into.superseded += 1
        if number:
            into.wrong.append(f"{name}: superseded, but applied")
    else:
        into.completed += 1
        if not number:
            into.lost.append(f"{name}: completed, but never applied")


def _place_dead(name: str, record: Record, state: str | None, reasons: list[str], account: Account) -> None:
    account.dead += 1
    if len(reasons) > 1:
        account.doubled.append(f"{name}: {len(reasons)} dead letters")
    if state != "dlq":
        account.wrong.append(f"{name}: a dead letter with the status {state}")
    if not record.invalid:
        if set(reasons) == {"unanswered"}:
            account.unanswered += 1
        else:
            account.wrong.append(f"{name}: valid, but a dead letter ({reasons[0]})")


def _check_trusted(ledger: Ledger, places: Places, account: Account) -> None:
    found = {payload.rpartition("|")[2] for payloads in places.pending.values() for payload in payloads}
    found |= {payload.rpartition("|")[2] for letters in places.dead.values() for payload, _ in letters}
    found |= {row["o_comment"] for row in places.rows.values()}
    last: dict[int, int] = {}
    for each in [*ledger.accepted.values(), *ledger.unknown.values(), *ledger.trusted.values()]:
        last[each.key] = max(last.get(each.key, 0), each.number)
    for tag, record in ledger.trusted.items():
        # An earlier write of a row may have been replaced.
        if tag not in found and last[record.key] == record.number:
            account.lost.append(f"{tag}: nowhere")


def _check_rows(ledger: Ledger, places: Places, account: Account) -> None:
    """The last write of each row wins; a later record with an unknown outcome may have been applied instead."""
    applied: dict[int, list[Record]] = defaultdict(list)
    for message_id, record in ledger.accepted.items():
        status = places.statuses.get(message_id)
        if status is not None and status["status"] == "completed":
            applied[record.key].append(record)
    possible = {each.tag: each for each in [*ledger.unknown.values(), *ledger.trusted.values()]}
    known = {each.tag: each for each in ledger.accepted.values()} | possible
    for key, records in applied.items():
        last = max(records, key=lambda each: each.number)
        row = places.rows.get(key)
        if row is None:
            account.lost.append(f"{last.tag}: completed, but no row {key}")
        elif row["o_comment"] != last.tag:
            other = possible.get(row["o_comment"])
            if other is None or other.number < last.number:
                account.wrong.append(f"row {key}: expected {last.tag}, found {row['o_comment']}")
    for key, row in places.rows.items():
        origin = known.get(row["o_comment"])
        if origin is None or origin.key != key or origin.invalid:
            account.wrong.append(f"row {key}: {row['o_comment']} was never posted for it")


async def _read(parts: Parts) -> Places:
    database = await asyncpg.connect(parts.postgres.server.url)
    try:
        statuses = await database.fetch("SELECT message_id::text, status, superseded, replays FROM message_status")
        rows = await database.fetch("SELECT o_orderkey, o_comment, message_id::text FROM orders")
        applied = await database.fetch("SELECT message_id::text, count(*) AS number FROM applied GROUP BY 1")
    finally:
        await database.close()
    client = await connect_nats(parts.nats_url)
    try:
        jetstream = client.jetstream(timeout=10)
        consumer = await jetstream.consumer_info("MESSAGES", "workers")
        passed = consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0
        pending: dict[str, list[str]] = defaultdict(list)
        leftover: Counter[str] = Counter()
        async for message in read_stream(jetstream, "MESSAGES"):
            message_id = str(message.subject).rpartition(".")[2]
            if int(message.seq or 0) <= passed:
                leftover[message_id] += 1
            else:
                pending[message_id].append(_text(message))
        dead: dict[str, list[tuple[str, str]]] = defaultdict(list)
        async for message in read_stream(jetstream, "MESSAGESDLQ"):
            reason = (message.headers or {}).get("Nomnom-Reason", "")
            dead[str(message.subject).rpartition(".")[2]].append((_text(message), reason))
    finally:
        await client.close()
    return Places(
        {each["message_id"]: each for each in statuses},
        {each["o_orderkey"]: each for each in rows},
        Counter({each["message_id"]: each["number"] for each in applied}),
        pending,
        leftover,
        dead,
    )


async def read_stream(jetstream: JetStreamContext, stream: str) -> AsyncIterator[RawStreamMsg]:
    """Every message of a stream, read from its leader without consuming it."""
    sequence = (await jetstream.stream_info(stream)).state.first_seq
    while True:
        try:
            message = await jetstream.get_msg(stream, seq=sequence, subject=">", next=True)
        except NotFoundError:
            return
        yield message
        sequence = int(message.seq or 0) + 1


def _text(message: RawStreamMsg) -> str:
    return (message.data or b"").decode(errors="replace")
