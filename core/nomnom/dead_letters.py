"""Publishing a dead letter: the workers and the housekeeper do it alike."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import PubAck
from nats.js.errors import APIError

from nomnom.envelope import Envelope, dead_subject
from nomnom.errors import NomnomError

_TIMEOUT = 5.0
_MARGIN = 64
"""Upper bound for the size of the header block without its lines, in bytes."""


class DeadLetterRejected(NomnomError):  # noqa: N818
    """A dead letter is not known to be stored; the text is the reason. ``certain``: it is not."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


async def publish_dead_letter(
    client: Client, stream: str, envelope: Envelope, payload: bytes, headers: Mapping[str, str]
) -> PubAck:
    """Publish a dead letter to ``stream`` and await its ack. Raises DeadLetterRejected."""
    size = len(payload) + sum(len(name) + len(text.encode()) + 4 for name, text in headers.items())
    if size + _MARGIN > client.max_payload:
        # NATS would close the connection instead of rejecting the message.
        raise DeadLetterRejected(
            f"its size, including headers, exceeds max_payload of the server: {client.max_payload:,} bytes",
            certain=True,
        )
    subject = dead_subject(envelope.entity, envelope.message_id)
    try:
        ack = await client.jetstream().publish(subject, payload, timeout=_TIMEOUT, headers=dict(headers))
    except APIError as error:
        raise DeadLetterRejected(error.description or str(error), certain=True) from error
    except (OSError, NatsError, TimeoutError) as error:
        raise DeadLetterRejected(str(error) or type(error).__name__, certain=False) from error
    if ack.stream != stream:
        reason = f"stored in stream {ack.stream}, not {stream}: their subjects overlap"
        raise DeadLetterRejected(reason, certain=False)
    return ack
