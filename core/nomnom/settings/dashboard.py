"""The settings of the dashboard."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from nomnom.settings.common import Settings
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
    """Where the dashboard listens, who may read, and how long a query may take."""

    TOGETHER: ClassVar[frozenset[str]] = frozenset(
        f"NOMNOM_DASHBOARD_{each}" for each in ("TOKENS", "USER", "PASSWORD", "AUTH_REQUIRED")
    )

    nomnom_dashboard_host: Annotated[str, about("Address that the dashboard listens on")] = "0.0.0.0"  # noqa: S104 (a container's only interface; the local runtime sets loopback)
    nomnom_dashboard_port: Annotated[Port, about("Port of the query API; 0: any free one")] = 3000
    nomnom_dashboard_page_port: Annotated[Port | None, about("Second port for the same, for the page")] = None
    nomnom_dashboard_page: Annotated[str, about("Folder of the built page; empty: the one that nomnom includes")] = ""
    nomnom_dashboard_tokens: Annotated[
        str, about("Bearer tokens, separated by commas", secret=True, check=_read_tokens)
    ] = ""
    nomnom_dashboard_user: Annotated[str, about("User of basic authentication; needs a password too")] = ""
    nomnom_dashboard_password: Annotated[str, about("Password of that user", secret=True)] = ""
    nomnom_dashboard_auth_required: Annotated[bool, about("Do not start without tokens, or user and password")] = False
    nomnom_dashboard_origins: Annotated[
        str, about("Origins that may read from a browser (CORS), separated by commas")
    ] = ""
    nomnom_dashboard_interval_ms: Annotated[
        int, msgspec.Meta(ge=50, le=60_000), about("Time between two updates of the page", "ms")
    ] = 1000
    nomnom_dashboard_query_seconds: Annotated[Seconds, about("Longest time for a query", "s")] = 5.0
    nomnom_dashboard_connections: Annotated[
        int, msgspec.Meta(ge=2, le=100), about("Most connections to PostgreSQL", "connections")
    ] = 8
    nomnom_dashboard_dead_letters: Annotated[
        int,
        msgspec.Meta(ge=100, le=1_000_000),
        about("Newest dead letters that are kept in memory for filters and groups", "dead letters"),
    ] = 100_000
    nomnom_dashboard_grace: Annotated[Seconds, about("Time for requests to finish after SIGTERM", "s")] = 5.0

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
