"""What an operator sets for the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from nomnom.settings import Port, Seconds, Settings, SettingsError

_TOKEN_LENGTH = 8


class DashboardSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Where the dashboard listens, who may ask, and how long a query may take (seconds)."""

    nomnom_dashboard_host: str = "0.0.0.0"  # noqa: S104  a container's only interface; the local runtime passes loopback
    nomnom_dashboard_port: Port = 3000
    nomnom_dashboard_page_port: Port | None = None
    """A second port for the same: where people look for the page."""
    nomnom_dashboard_page: str = ""
    """The folder of the built page; by default the one that comes with nomnom."""
    nomnom_dashboard_tokens: str = ""
    nomnom_dashboard_user: str = ""
    nomnom_dashboard_password: str = ""
    nomnom_dashboard_auth_required: bool = False
    """Refuse to start where nobody would be asked for a token or a password."""
    nomnom_dashboard_origins: str = ""
    """Origins that may ask from a browser (CORS), comma separated; none by default."""
    nomnom_dashboard_interval_ms: Annotated[int, msgspec.Meta(ge=50, le=60_000)] = 1000
    nomnom_dashboard_query_seconds: Seconds = 5.0
    nomnom_dashboard_connections: Annotated[int, msgspec.Meta(ge=2, le=100)] = 8
    nomnom_dashboard_letters: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 100_000
    """How many of the newest dead letters are kept in memory to filter and group by."""
    nomnom_dashboard_grace: Seconds = 5.0

    @property
    def tokens(self) -> tuple[str, ...]:
        """The bearer tokens; empty where none are set. Raises SettingsError where one is too short to be a secret."""
        tokens = tuple(each.strip() for each in self.nomnom_dashboard_tokens.split(",") if each.strip())
        if any(len(each) < _TOKEN_LENGTH for each in tokens):
            raise SettingsError(f"NOMNOM_DASHBOARD_TOKENS: a token needs at least {_TOKEN_LENGTH} characters")
        return tokens

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of basic authentication. Raises SettingsError where only one of them is set."""
        user, password = self.nomnom_dashboard_user, self.nomnom_dashboard_password
        if bool(user) != bool(password):
            raise SettingsError("NOMNOM_DASHBOARD_USER and NOMNOM_DASHBOARD_PASSWORD: set both, or neither")
        return (user, password) if user else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins allowed by CORS."""
        return tuple(each.strip() for each in self.nomnom_dashboard_origins.split(",") if each.strip())

    @property
    def page(self) -> Path:
        """The folder of the built page, whether or not it exists."""
        if self.nomnom_dashboard_page:
            return Path(self.nomnom_dashboard_page)
        here = Path(__file__).resolve().parent
        # An installed distribution holds the page beside this module; a work tree builds it in web/.
        return here / "page" if (here / "page").is_dir() else here.parent / "web" / "dist"
