"""The settings that every component reads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.declaration import Declaration, about
from nomnom.settings.streams import StreamSettings

_SECRET_PARAMETERS = frozenset({"password", "passfile", "sslpassword", "token"})


def without_secrets(url: str) -> str:
    """A URL (or NATS's list of them) as it may be shown: with its user, without its password or token."""
    return ",".join(_without_secrets(each) for each in url.split(","))


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    place, mark, query = rest.partition("?")
    # A password may hold an @ of its own: everything before the last one belongs to the user.
    user, at, host = place.rpartition("@")
    name, colon, _ = user.partition(":")
    # NATS reads a user without a password as a token.
    shown = f"{name}:***" if colon else "***" if scheme.startswith(("nats", "tls")) else name
    pairs = [pair.partition("=") for pair in query.split("&")]
    kept = "&".join(f"{key}{equals}{'***' if key in _SECRET_PARAMETERS else value}" for key, equals, value in pairs)
    return f"{scheme}{separator}{f'{shown}@' if at else ''}{host}{mark}{kept}"


MonitorUrl = Annotated[
    str,
    about(
        "URL of nats-server's monitoring port, or several separated by commas, to find failed writes; empty: none",
        secret=True,
        show=without_secrets,
    ),
]
_STREAMS = StreamSettings()
_NAME = "letters, digits, - and _, at most 200"
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,200}$")]


class Settings(Declaration, frozen=True, kw_only=True, rename=str.upper):
    """Server URLs, stream and consumer names, schema and logging."""

    nats_url: Annotated[str, about("NATS URL, or several separated by commas", secret=True, show=without_secrets)] = (
        "nats://127.0.0.1:4222"
    )
    nats_stream: Annotated[
        _Name,
        about(
            "Message stream; the dead-letter stream has the same name with the suffix DLQ",
            shared=True,
            expects=_NAME,
        ),
    ] = _STREAMS.stream
    nats_consumer: Annotated[_Name, about("The workers' consumer of that stream", shared=True, expects=_NAME)] = (
        _STREAMS.consumer
    )
    nats_inbox_prefix: Annotated[
        str,
        msgspec.Meta(pattern=r"^[\w-]+(\.[\w-]+)*$"),
        about(
            "Prefix of the subjects for replies; a NATS user may be limited to its own",
            expects="letters, digits, - and _, with dots between",
        ),
    ] = "_INBOX"
    database_url: Annotated[str, about("URL of the PostgreSQL database", secret=True, show=without_secrets)] = (
        "postgresql://postgres@127.0.0.1:5432/nomnom"
    )
    database_statement_cache: Annotated[
        int,
        msgspec.Meta(ge=0, le=10_000),
        about("Prepared statements per connection; 0: none, for PgBouncer in transaction mode", "statements"),
    ] = 100
    nomnom_schema: Annotated[str, about("Schema of the records: tpch, ecommerce or a file", shared=True)] = "tpch"
    log_level: Annotated[str, about("Minimum log level", choices=("debug", "info", "warning", "error"))] = "info"
    log_format: Annotated[
        str, about("Log format; auto: text on a terminal, otherwise JSON", choices=("auto", "json", "text"))
    ] = "auto"

    @property
    def streams(self) -> StreamSettings:
        """The streams that these settings name."""
        return StreamSettings(stream=self.nats_stream, consumer=self.nats_consumer)
