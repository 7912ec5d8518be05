"""The settings of the ingest API."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.common import MonitorUrl, Settings
from nomnom.settings.declaration import Port, Positive, Seconds, about
from nomnom.settings.tokens import Token, read_tokens

_MIB = 1024 * 1024


class ApiSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Listen address, tokens and limits of the ingest API."""

    nats_monitor_url: MonitorUrl = ""
    nomnom_api_host: Annotated[str, about("Listen address of the API")] = "0.0.0.0"  # noqa: S104 (a container's only interface; the local runtime sets loopback)
    nomnom_api_port: Annotated[Port, about("Listen port of the API; 0: any free port")] = 8080
    nomnom_api_tokens: Annotated[
        str,
        about(
            "Bearer tokens, name:token or token, separated by commas; empty: authentication is disabled",
            secret=True,
            check=read_tokens,
        ),
    ] = ""
    nomnom_api_max_body: Annotated[Positive, about("Maximum message size; a line of a batch is a message", "bytes")] = (
        _MIB
    )
    nomnom_api_batch_max_body: Annotated[Positive, about("Maximum batch size", "bytes")] = 256 * _MIB
    nomnom_api_batch_window: Annotated[
        int,
        msgspec.Meta(ge=1, le=100_000),
        about("Maximum messages of one batch that await JetStream's ack before reading pauses", "messages"),
    ] = 2000
    nomnom_api_batches: Annotated[Positive, about("Maximum concurrent batches; beyond: 503", "batches")] = 8
    nomnom_api_max_in_flight: Annotated[
        Positive,
        about("Maximum single messages that await JetStream's ack; beyond: 503", "messages"),
    ] = 4096
    nomnom_api_max_buffer: Annotated[
        int,
        msgspec.Meta(ge=_MIB),
        about("Maximum bytes of large bodies in memory, and of unsent data for NATS; beyond either: 503", "bytes"),
    ] = 64 * _MIB
    nomnom_api_ack_timeout: Annotated[Seconds, about("Timeout for JetStream's ack", "s")] = 5.0
    nomnom_api_read_timeout: Annotated[Seconds, about("Timeout for the next part of a body", "s")] = 30.0
    nomnom_api_grace: Annotated[Seconds, about("Grace period for requests after SIGTERM", "s")] = 20.0
    nomnom_api_drain: Annotated[
        float,
        msgspec.Meta(ge=0, le=86_400),
        about("Time to keep accepting requests after SIGTERM, with 503 from /ready for load balancers", "s"),
    ] = 0.0

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens; empty if authentication is disabled."""
        return read_tokens(self.nomnom_api_tokens)
