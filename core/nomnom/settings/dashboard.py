"""The settings of the dashboard."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from nomnom.settings.common import MonitorUrl, Settings
from nomnom.settings.declaration import Port, Seconds, SettingsError, about
from nomnom.settings.tokens import SHORTEST


def _read_tokens(text: str) -> tuple[str, ...]:
    tokens = _listed(text)
    if any(len(each) < SHORTEST for each in tokens):
        raise ValueError(f"a token needs at least {SHORTEST} characters")
    return tokens


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


class DashboardSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Listen addresses, authentication and query limits of the dashboard."""

    TOGETHER: ClassVar[frozenset[str]] = frozenset(
        f"NOMNOM_DASHBOARD_{each}" for each in ("TOKENS", "USER", "PASSWORD", "AUTH_REQUIRED")
    )

    nats_monitor_url: MonitorUrl = ""
    nomnom_dashboard_host: Annotated[str, about("Listen address of the dashboard")] = "0.0.0.0"  # noqa: S104 (a container's only interface; the local runtime sets loopback)
    nomnom_dashboard_port: Annotated[Port, about("Listen port of the query API; 0: any free port")] = 3000
    nomnom_dashboard_page_port: Annotated[Port | None, about("Second listen port, for the web UI")] = None
    nomnom_dashboard_page: Annotated[str, about("Folder of the built web UI; empty: the included one")] = ""
    nomnom_dashboard_tokens: Annotated[
        str, about("Bearer tokens, separated by commas", secret=True, check=_read_tokens)
    ] = ""
    nomnom_dashboard_user: Annotated[str, about("User of basic authentication; requires a password")] = ""
    nomnom_dashboard_password: Annotated[str, about("Password of that user", secret=True)] = ""
    nomnom_dashboard_auth_required: Annotated[bool, about("Refuse to start without authentication")] = False
    nomnom_dashboard_origins: Annotated[str, about("Origins allowed by CORS, separated by commas")] = ""
    nomnom_dashboard_interval_ms: Annotated[
        int, msgspec.Meta(ge=50, le=60_000), about("Interval between updates of the web UI", "ms")
    ] = 1000
    nomnom_dashboard_query_seconds: Annotated[Seconds, about("Query timeout", "s")] = 5.0
    nomnom_dashboard_connections: Annotated[
        int, msgspec.Meta(ge=2, le=100), about("Maximum connections to PostgreSQL", "connections")
    ] = 8
    nomnom_dashboard_dead_letters: Annotated[
        int,
        msgspec.Meta(ge=100, le=1_000_000),
        about("Maximum dead letters in memory, newest first, for filters and groups", "dead letters"),
    ] = 100_000
    nomnom_dashboard_grace: Annotated[Seconds, about("Grace period for requests after SIGTERM", "s")] = 5.0

    def check(self) -> None:
        """Raise SettingsError if only user or password is set, or authentication is required and not configured."""
        if self.credentials is None and not self.tokens and self.nomnom_dashboard_auth_required:
            raise SettingsError(
                "NOMNOM_DASHBOARD_AUTH_REQUIRED: authentication is required but not configured: set "
                "NOMNOM_DASHBOARD_TOKENS, or NOMNOM_DASHBOARD_USER and NOMNOM_DASHBOARD_PASSWORD"
            )

    @property
    def tokens(self) -> tuple[str, ...]:
        """The bearer tokens; empty if none are set."""
        return _read_tokens(self.nomnom_dashboard_tokens)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of basic authentication. Raises SettingsError if only one of them is set."""
        user, password = self.nomnom_dashboard_user, self.nomnom_dashboard_password
        if bool(user) != bool(password):
            raise SettingsError("NOMNOM_DASHBOARD_USER and NOMNOM_DASHBOARD_PASSWORD: set both, or neither")
        return (user, password) if user else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins allowed by CORS."""
        return _listed(self.nomnom_dashboard_origins)
