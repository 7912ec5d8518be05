"""The two themes, dark and light: greys and one accent colour."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="nomnom-dark",
    primary="#4db6c6",
    secondary="#6b8299",
    accent="#4db6c6",
    foreground="#cdd3da",
    background="#12161c",
    surface="#12161c",
    panel="#1f2630",
    success="#7fb87a",
    warning="#dcae56",
    error="#e5707a",
    dark=True,
    variables={
        "muted": "#7d8896",
        "faint": "#3a4452",
        "cursor": "#243340",
        "cursor-inactive": "#1b222b",
        "hue-1": "#6cb6d9",
        "hue-2": "#b294d6",
        "hue-3": "#8fbf7f",
        "hue-4": "#d9a05b",
        "hue-5": "#d98aa8",
        "hue-6": "#70c2ad",
        "border": "#3a4452",
        "scrollbar": "#3a4452",
        "scrollbar-hover": "#56637a",
        "scrollbar-background": "#12161c",
        "scrollbar-background-hover": "#171c24",
        "scrollbar-corner-color": "#12161c",
        "raised": "#1b212a",
        "input-selection-background": "#4db6c6 35%",
        "block-cursor-text-style": "none",
        "button-focus-text-style": "bold",
    },
)

LIGHT = Theme(
    name="nomnom-light",
    primary="#0b7285",
    secondary="#5b6b7c",
    accent="#0b7285",
    foreground="#23292f",
    background="#fbfbf9",
    surface="#fbfbf9",
    panel="#e8e8e4",
    success="#2f7d32",
    warning="#925f00",
    error="#b4232f",
    dark=False,
    variables={
        "muted": "#66707b",
        "faint": "#c3c8ce",
        "cursor": "#d5e6ea",
        "cursor-inactive": "#ebebe7",
        "hue-1": "#1c6ea4",
        "hue-2": "#7a4bb0",
        "hue-3": "#3f7d20",
        "hue-4": "#a35c00",
        "hue-5": "#a83268",
        "hue-6": "#00796b",
        "border": "#c3c8ce",
        "scrollbar": "#c3c8ce",
        "scrollbar-hover": "#9aa3ad",
        "scrollbar-background": "#fbfbf9",
        "scrollbar-background-hover": "#f3f3f0",
        "scrollbar-corner-color": "#fbfbf9",
        "raised": "#f2f2ee",
        "input-selection-background": "#0b7285 30%",
        "block-cursor-text-style": "none",
        "button-focus-text-style": "bold",
    },
)

THEMES = (DARK, LIGHT)


def variables_for(theme: Theme) -> dict[str, str]:
    """Return our own variables for a theme that does not define them, such as one of Textual's."""
    return dict(DARK.variables if theme.dark else LIGHT.variables)
