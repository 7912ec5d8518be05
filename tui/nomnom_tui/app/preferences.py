"""The user's settings file: theme and keys. Errors in it are reported and do not stop the app."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from platformdirs import user_config_path, user_log_path


@dataclass(frozen=True, slots=True)
class Preferences:
    """The contents of the settings file. ``keys`` maps the id of a binding to its keys."""

    path: Path
    theme: str | None = None
    keys: dict[str, str] = field(default_factory=dict[str, str])
    problem: str | None = None
    """What is wrong with the file, as one sentence."""


def settings_file() -> Path:
    """Return the path in ``NOMNOM_TUI_SETTINGS``, or ``tui.toml`` in the user's configuration directory."""
    override = os.environ.get("NOMNOM_TUI_SETTINGS")
    return Path(override) if override else user_config_path("nomnom") / "tui.toml"


def log_file() -> Path:
    """Return the path of the app's log file."""
    return user_log_path("nomnom") / "tui.log"


def read_preferences(path: Path | None = None) -> Preferences:
    """Read the settings file; returns the defaults if there is none, and the problem if it is invalid."""
    path = path or settings_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Preferences(path)
    except (OSError, UnicodeDecodeError) as error:
        return Preferences(path, problem=f"cannot read {path}: {error}")
    # Imported here because this runs before the first paint and most users have no settings file.
    import tomllib

    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Preferences(path, problem=f"cannot read {path}: {error}")
    theme, keys = settings.get("theme"), settings.get("keys", {})
    problem = None
    if unknown := sorted(set(settings) - {"theme", "keys"}):
        problem = f"{path}: unknown setting {', '.join(unknown)}; valid are theme and [keys]"
    if theme is not None and not isinstance(theme, str):
        theme, problem = None, f"{path}: theme must be a string"
    pairs: dict[str, str] = {}
    if not isinstance(keys, dict):
        return Preferences(path, theme, {}, f"{path}: keys must be a table")
    for name, value in cast("dict[str, Any]", keys).items():
        if isinstance(value, str) and value:
            pairs[name] = value
        else:
            problem = f"{path}: keys.{name} must be a string of keys, such as 'ctrl+r' or 'r,f5'"
    return Preferences(path, theme, pairs, problem)
