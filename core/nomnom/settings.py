"""Settings from the environment, one structure for each program. Names are those that operators set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Self

import msgspec

from nomnom.errors import NomnomError
from nomnom.streams import DAY, GIB, StreamSettings


class SettingsError(NomnomError):
    """A setting that cannot be used; its value is not repeated, since it may be a secret."""


Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """What every program needs: where NATS and PostgreSQL are, the streams' names, the schema."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_stream: str = "MESSAGES"
    nats_consumer: str = "workers"
    nats_replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    nats_max_age: Seconds = DAY
    nats_max_bytes: Positive = GIB
    nats_dead_max_age: Seconds = 7 * DAY
    nats_dead_max_bytes: Positive = GIB
    nats_ack_wait: Seconds = 30.0
    nats_inbox_prefix: Annotated[str, msgspec.Meta(pattern=r"^[\w-]+(\.[\w-]+)*$")] = "_INBOX"
    """Where answers come to: a user of NATS may be allowed no inboxes but its own."""
    database_url: str = "postgresql://postgres@127.0.0.1:5432/nomnom"
    nomnom_schema: str = "tpch"
    log_level: str = "info"
    log_format: str = "auto"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the environment; raises SettingsError, naming the variable."""
        given = os.environ if environment is None else environment
        known = {each.encode_name for each in msgspec.structs.fields(cls)}
        try:
            return msgspec.convert({k: v for k, v in given.items() if k in known and v}, cls, strict=False)
        except msgspec.ValidationError as error:
            problem, _, name = str(error).partition(" - at `$.")
            raise SettingsError(f"{name.rstrip('`') or 'settings'}: {problem}") from error

    @property
    def streams(self) -> StreamSettings:
        """The streams that these settings name."""
        return StreamSettings(
            stream=self.nats_stream,
            consumer=self.nats_consumer,
            replicas=self.nats_replicas,
            max_age=self.nats_max_age,
            max_bytes=self.nats_max_bytes,
            dead_max_age=self.nats_dead_max_age,
            dead_max_bytes=self.nats_dead_max_bytes,
            ack_wait=self.nats_ack_wait,
        )


_SECRET_PARAMETERS = frozenset({"password", "passfile", "sslpassword", "token"})


def without_secrets(url: str) -> str:
    """A URL (or NATS's list of them) as it may be shown: its user stays, its password or token does not."""
    return ",".join(_without_secrets(each) for each in url.split(","))


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    place, mark, query = rest.partition("?")
    # A password may hold any character but a bar: what stands before the last @ of the place is the user's.
    user, at, host = place.rpartition("@")
    name, colon, _ = user.partition(":")
    # NATS reads a user without a password as a token.
    shown = f"{name}:***" if colon else "***" if scheme.startswith(("nats", "tls")) else name
    pairs = [pair.partition("=") for pair in query.split("&")]
    kept = "&".join(f"{key}{equals}{'***' if key in _SECRET_PARAMETERS else value}" for key, equals, value in pairs)
    return f"{scheme}{separator}{f'{shown}@' if at else ''}{host}{mark}{kept}"
