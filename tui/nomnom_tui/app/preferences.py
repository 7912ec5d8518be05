"""The person's settings file: theme and keys. A fault in it is told, and never stops the app."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from platformdirs import user_config_path, user_log_path


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the settings file says. ``keys`` maps a binding's id to the keys it should have."""

    path: Path
    theme: str | None = None
    keys: dict[str, str] = field(default_factory=dict[str, str])
    problem: str | None = None
    """What is wrong with the file, as one sentence."""


def settings_file() -> Path:
    """``NOMNOM_TUI_SETTINGS``, else ``tui.toml`` in the user's configuration folder."""
    given = os.environ.get("NOMNOM_TUI_SETTINGS")
    return Path(given) if given else user_config_path("nomnom") / "tui.toml"


def log_file() -> Path:
    """Where the app writes what it did not expect."""
    return user_log_path("nomnom") / "tui.log"


def read_preferences(path: Path | None = None) -> Preferences:
    """Read the settings file; without one, or with a faulty one, the defaults (and the fault)."""
    path = path or settings_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Preferences(path)
    except (OSError, UnicodeDecodeError) as error:
        return Preferences(path, problem=f"{path} cannot be read: {error}")
    # Read before the first paint, and most people have no such file.
    import tomllib

    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Preferences(path, problem=f"{path} cannot be read: {error}")
    theme, keys = given.get("theme"), given.get("keys", {})
    problem = None
    if unknown := sorted(set(given) - {"theme", "keys"}):
        problem = f"{path}: unknown {', '.join(unknown)}; it has theme and [keys]"
    if theme is not None and not isinstance(theme, str):
        theme, problem = None, f"{path}: theme has to be a text"
    pairs: dict[str, str] = {}
    if not isinstance(keys, dict):
        return Preferences(path, theme, {}, f"{path}: keys has to be a table")
    for name, value in cast("dict[str, Any]", keys).items():
        if isinstance(value, str) and value:
            pairs[name] = value
        else:
            problem = f"{path}: keys.{name} has to be a key as text, such as 'ctrl+r' or 'r,f5'"
    return Preferences(path, theme, pairs, problem)
