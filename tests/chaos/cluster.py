"""What a cluster of nats-servers says about its streams."""

from __future__ import annotations

from nats.errors import Error as NatsError

from tests.chaos.parts import Parts, connect_nats


async def leader_of(parts: Parts, stream: str) -> str:
    """The name of the server that leads a stream; empty if there is none now."""
    try:
        client = await connect_nats(parts.nats_url)
    except (OSError, NatsError, TimeoutError):
        return ""
    try:
        info = await client.jetstream(timeout=2).stream_info(stream)
    except (NatsError, TimeoutError):
        return ""
    finally:
        await client.close()
    return str(info.cluster.leader or "") if info.cluster is not None else ""
