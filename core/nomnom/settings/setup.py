"""The settings of ``nomnom setup``."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec

from nomnom.settings.common import Settings, without_secrets
from nomnom.settings.declaration import Count, Positive, Seconds, about
from nomnom.settings.streams import StreamSettings

_STREAMS = StreamSettings()


def read_login(url: str) -> tuple[str, str]:
    """User and password of a database URL. Raises ValueError if one of them is missing."""
    parts = urlsplit(url)
    if not parts.username or not parts.password:
        raise ValueError("needs a user and a password")
    return unquote(parts.username), unquote(parts.password)


def _role(component: str) -> msgspec.Meta:
    meaning = f"Database URL of the {component}: setup creates or updates the role that it logs in as"
    return about(meaning, secret=True, check=read_login, show=without_secrets)


class SetupSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Limits of the streams, and the roles that the components log in as. DATABASE_URL logs in as the tables' owner."""

    nats_replicas: Annotated[int, msgspec.Meta(ge=1, le=5), about("Replicas of each stream")] = _STREAMS.replicas
    nats_max_age: Annotated[Seconds, about("Age at which an unprocessed message becomes a dead letter", "s")] = (
        _STREAMS.max_age
    )
    nats_max_bytes: Annotated[Positive, about("Maximum stream size; a full stream rejects messages", "bytes")] = (
        _STREAMS.max_bytes
    )
    nats_dead_max_age: Annotated[Seconds, about("Age at which a dead letter is archived", "s")] = _STREAMS.dead_max_age
    nats_dead_max_bytes: Annotated[Positive, about("Maximum size of the dead-letter stream", "bytes")] = (
        _STREAMS.dead_max_bytes
    )
    nats_ack_wait: Annotated[Seconds, about("Time after which an unacknowledged message is delivered again", "s")] = (
        _STREAMS.ack_wait
    )
    nomnom_setup_wait: Annotated[Seconds, about("Maximum time to wait for each server", "s")] = 30.0
    nomnom_setup_expire: Annotated[
        Count,
        about("Confirms a lower maximum age: the number of messages and dead letters that are older", "messages"),
    ] = 0
    database_worker_url: Annotated[str, _role("worker")] = ""
    database_api_url: Annotated[str, _role("api")] = ""
    database_dashboard_url: Annotated[str, _role("dashboard")] = ""
    database_operator_url: Annotated[str, _role("operator")] = ""
    database_housekeeper_url: Annotated[str, _role("housekeeper")] = ""

    @property
    def streams(self) -> StreamSettings:
        """The streams with their limits."""
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

    @property
    def role_urls(self) -> dict[str, str]:
        """The URL of each component that gets a role of its own."""
        urls = {
            "worker": self.database_worker_url,
            "api": self.database_api_url,
            "dashboard": self.database_dashboard_url,
            "operator": self.database_operator_url,
            "housekeeper": self.database_housekeeper_url,
        }
        return {component: url for component, url in urls.items() if url}
