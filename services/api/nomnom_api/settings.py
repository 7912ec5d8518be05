"""What an operator sets for the ingest API."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings import Port, Positive, Seconds, Settings, SettingsError
from nomnom_api.access import Token, read_tokens

_MIB = 1024 * 1024


class ApiSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Where the api listens, who may post, and its limits. Sizes in bytes, times in seconds."""

    nomnom_api_host: str = "0.0.0.0"  # noqa: S104  a container's only interface; the local runtime passes loopback
    nomnom_api_port: Port = 8080
    nomnom_api_tokens: str = ""
    """Bearer tokens, comma separated, each ``name:token`` or ``token``; none: everyone may post."""
    nomnom_api_max_body: Positive = _MIB
    """The largest message; a line of a batch is a message."""
    nomnom_api_batch_max_body: Positive = 256 * _MIB
    """The largest batch."""
    nomnom_api_batch_window: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2000
    """Messages of one batch that wait for JetStream's ack at a time; when it is full, the body is read no further."""
    nomnom_api_batches: Positive = 8
    """Batches at a time; a further one is answered 503."""
    nomnom_api_max_in_flight: Positive = 4096
    """Single messages that wait for JetStream's ack at a time; a further one is answered 503."""
    nomnom_api_max_buffer: Annotated[int, msgspec.Meta(ge=_MIB)] = 64 * _MIB
    """Bytes of large bodies being read, and bytes not yet sent to NATS: beyond either, requests are answered 503."""
    nomnom_api_ack_timeout: Seconds = 5.0
    """The longest wait for JetStream's ack."""
    nomnom_api_read_timeout: Seconds = 30.0
    """The longest wait for the next part of a body."""
    nomnom_api_grace: Seconds = 20.0
    """How long requests may take to finish after SIGTERM."""
    nomnom_api_drain: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long to go on taking requests after SIGTERM while /ready says 503: until a balancer has noticed."""

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens; raises SettingsError where one cannot be used, without repeating it."""
        try:
            return read_tokens(self.nomnom_api_tokens)
        except ValueError as error:
            raise SettingsError(f"NOMNOM_API_TOKENS: {error}") from error
