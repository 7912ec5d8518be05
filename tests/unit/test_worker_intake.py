"""What the worker holds, and when a segment is acknowledged: after the last of its messages, with the longest delay."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nomnom.envelope import headers, segment_subject
from nomnom.segments import join, new_segment_id
from nomnom.settings import WorkerSettings
from nomnom_worker.intake import Intake
from nomnom_worker.link import ACK, Link, nak
from nomnom_worker.metrics import Metrics

REPLY = "$JS.ACK.MESSAGES.workers.1.77.5.1700000000000000000.9"
SIZE = 3


class Responses:
    """A link that keeps the responses."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[str | None], None]] = []
        self.given: list[tuple[str, bytes]] = []

    async def respond(self, replies: Iterable[str], response: bytes = ACK) -> None:
        """Keep a response."""
        self.given += [(each, response) for each in replies]


@pytest.fixture
def link() -> Responses:
    return Responses()


@pytest.fixture
async def intake(link: Responses) -> Intake:
    async def register(created: datetime) -> int:
        return 1

    return Intake(WorkerSettings(), cast("Link", link), Metrics(), register)


def segment() -> Msg:
    subject = segment_subject("orders", new_segment_id(), SIZE)
    return Msg(cast("Client", None), subject=subject, reply=REPLY, data=join([b"O|1"] * SIZE), headers=headers(1))


async def test_segment_is_acknowledged_once_after_its_last_message(intake: Intake, link: Responses) -> None:
    intake._receive(segment())
    intake.divide({REPLY: SIZE})
    await intake.respond([REPLY] * (SIZE - 1), ACK)
    assert (link.given, intake.held) == ([], SIZE)
    await intake.respond([REPLY], ACK)
    assert (link.given, intake.held) == ([(REPLY, ACK)], 0)


async def test_segment_with_a_failed_message_is_delivered_again(intake: Intake, link: Responses) -> None:
    intake._receive(segment())
    intake.divide({REPLY: SIZE})
    await intake.respond([REPLY], nak(2.0))
    await intake.respond([REPLY] * (SIZE - 1), ACK)
    assert link.given == [(REPLY, nak(2.0))]


async def test_delivery_that_is_repeated_as_the_same_one_is_ignored(intake: Intake, link: Responses) -> None:
    """A nats-server that was killed repeats deliveries it has forgotten: two copies must not respond for each other."""
    delivered = segment()
    intake._receive(delivered)
    intake._receive(delivered)
    assert (intake.held, len(await intake.next_batch())) == (SIZE, 1)
    intake.divide({REPLY: SIZE})
    await intake.respond([REPLY] * (SIZE - 1), ACK)
    assert link.given == []
    await intake.respond([REPLY], nak())
    assert link.given == [(REPLY, nak())]


async def test_message_of_a_returned_segment_does_not_acknowledge_the_others(intake: Intake, link: Responses) -> None:
    intake._receive(segment())
    intake.divide({REPLY: SIZE})
    assert await intake.release(nak()) == SIZE
    await intake.respond([REPLY], ACK)
    assert link.given == [(REPLY, nak())]
    await intake.respond([REPLY] * (SIZE - 1), ACK)
    assert link.given == [(REPLY, nak()), (REPLY, ACK)]
