"""Help: every key of the current view, from its bindings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.dialogs import Dialog

if TYPE_CHECKING:
    from nomnom_tui.app.application import NomnomApp

_GROUPS = {"view": "This screen", "table": "Table", "app": "All screens", "go": "Screens", "dialog": "Dialog"}


class HelpDialog(Dialog[None]):
    """All keys that work on the current screen, grouped, with the ids to rebind them."""

    DEFAULT_CSS = """
    HelpDialog > #box { width: 90; height: 90%; }
    HelpDialog #body { height: 1fr; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,q", "leave", "Close", show=False, id="help.leave"),
        Binding("down,j", "scroll(1)", "Down", show=False, id="help.down"),
        Binding("up,k", "scroll(-1)", "Up", show=False, id="help.up"),
        Binding("pagedown,space", "scroll(12)", "Page down", show=False, id="help.page_down"),
        Binding("pageup", "scroll(-12)", "Page up", show=False, id="help.page_up"),
    ]

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        """The list of keys."""
        with Vertical(id="box") as box:
            box.border_title = self._title
            box.border_subtitle = "esc closes"
            with VerticalScroll(id="body", can_focus=False):
                yield Static(content(*self._lines))

    def action_scroll(self, by: int) -> None:
        """Scroll by this many lines."""
        self.query_one("#body", VerticalScroll).scroll_relative(y=by, animate=False)


def describe_keys(app: NomnomApp) -> list[Line]:
    """Return every key that works now, grouped, each with the id that rebinds it in the settings file."""
    groups: dict[str, dict[tuple[str, str], list[str]]] = {}
    for active in app.screen.active_bindings.values():
        binding = active.binding
        if binding.system or not binding.description:
            continue
        prefix = (binding.id or "app.").partition(".")[0]
        group = prefix if prefix in _GROUPS else "view"
        # One action may have several keys.
        entry = groups.setdefault(group, {}).setdefault((binding.description, binding.id or ""), [])
        if (key := app.get_key_display(binding)) not in entry:
            entry.append(key)
    lines: list[Line] = []
    for group in (name for name in _GROUPS if name in groups):
        lines += [*([""] if lines else []), (_GROUPS[group], Style.HEADING)]
        for (description, name), keys in groups[group].items():
            lines.append(
                [
                    ("  " + " ".join(keys).ljust(16), Style.ACCENT),
                    (f"{description.ljust(28)} ", Style.PLAIN),
                    (name, Style.MUTED),
                ]
            )
    lines += [
        "",
        [
            ("To rebind keys, edit ", Style.MUTED),
            (str(app.preferences.path), Style.PLAIN),
            (" and use the ids on", Style.MUTED),
        ],
        [("the right: ", Style.MUTED), ('[keys]  "view.refresh" = "f5"', Style.PLAIN)],
    ]
    return lines
