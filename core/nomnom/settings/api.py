"""The settings of the ingest API."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.common import Settings
from nomnom.settings.declaration import Port, Positive, Seconds, about
from nomnom.settings.tokens import Token, read_tokens

_MIB = 1024 * 1024


class ApiSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Where the api listens, who may post, and its limits."""

    nomnom_api_host: Annotated[str, about("Address that the api listens on")] = "0.0.0.0"  # noqa: S104 (a container's only interface; the local runtime sets loopback)
    nomnom_api_port: Annotated[Port, about("Port of the api; 0: any free one")] = 8080
    nomnom_api_tokens: Annotated[
        str,
        about(
            "Bearer tokens, name:token or token, separated by commas; empty: everyone may post",
            secret=True,
            check=read_tokens,
        ),
    ] = ""
    nomnom_api_max_body: Annotated[Positive, about("Largest message; each line of a batch is a message", "bytes")] = (
        _MIB
    )
    nomnom_api_batch_max_body: Annotated[Positive, about("Largest batch", "bytes")] = 256 * _MIB
    nomnom_api_batch_window: Annotated[
        int,
        msgspec.Meta(ge=1, le=100_000),
        about("Messages of one batch that wait for JetStream's ack at a time; then reading pauses", "messages"),
    ] = 2000
    nomnom_api_batches: Annotated[Positive, about("Batches at a time; one more is answered with 503", "batches")] = 8
    nomnom_api_max_in_flight: Annotated[
        Positive,
        about("Single messages that wait for JetStream's ack at a time; one more is answered with 503", "messages"),
    ] = 4096
    nomnom_api_max_buffer: Annotated[
        int,
        msgspec.Meta(ge=_MIB),
        about("Large bodies in memory, and data not yet sent to NATS; above either, the answer is 503", "bytes"),
    ] = 64 * _MIB
    nomnom_api_ack_timeout: Annotated[Seconds, about("Longest wait for JetStream's ack", "s")] = 5.0
    nomnom_api_read_timeout: Annotated[Seconds, about("Longest wait for the next part of a body", "s")] = 30.0
    nomnom_api_grace: Annotated[Seconds, about("Time for requests to finish after SIGTERM", "s")] = 20.0
    nomnom_api_drain: Annotated[
        float,
        msgspec.Meta(ge=0, le=86_400),
        about("Time to accept requests after SIGTERM while /ready answers 503, until load balancers react", "s"),
    ] = 0.0

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens; empty if everyone may post."""
        return read_tokens(self.nomnom_api_tokens)
