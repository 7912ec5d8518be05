"""Dialogs over a view: confirmations, choices, and forms with validated fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from nomnom_tui.app.changes import Change
from nomnom_tui.text.styles import Line, Style, content

T = TypeVar("T")

_HEIGHT = 0.94
_FRAME = 5
"""Lines of a dialog besides its body: the border, and the buttons with their margins."""
_LABEL = 16
"""Minimum width of the labels of a form."""


class Dialog(ModalScreen[T]):
    """A box over the view. ``esc`` closes it without changing anything."""

    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog > #box {
        width: 76; max-width: 96%; height: auto; max-height: 94%;
        background: $raised; border: round $border; border-title-color: $accent; border-title-style: bold;
        padding: 0 2;
    }
    Dialog #text { height: auto; margin: 1 0 0 0; }
    Dialog #body { height: auto; max-height: 100%; }
    Dialog #buttons { height: 1; margin: 1 0; align-horizontal: right; }
    Dialog Button { height: 1; border: none; min-width: 10; margin-left: 2; padding: 0 2;
        background: $cursor-inactive; color: $foreground;
    }
    Dialog Button:focus { background: $accent; color: $background; text-style: bold; }
    Dialog Button.-danger:focus { background: $error; color: $background; }
    Dialog Button:disabled { color: $faint; }
    Dialog Input { height: 1; border: none; padding: 0 1; background: $background; }
    Dialog Input:focus { background: $cursor; border: none; }
    Dialog Input.-invalid { border: none; color: $error; }
    Dialog Label { color: $muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", id="dialog.leave"),
        Binding("left,h", "app.focus_previous", "Previous", show=False, id="dialog.previous"),
        Binding("right,l", "app.focus_next", "Next", show=False, id="dialog.next"),
    ]

    def on_resize(self) -> None:
        """Limit the body's height so that the buttons stay visible."""
        if self.query("#buttons"):
            self.query_one("#body").styles.max_height = max(1, int(self.size.height * _HEIGHT) - _FRAME)

    def action_leave(self) -> None:
        """Close without a result."""
        self.dismiss(None)


class ConfirmDialog(Dialog[bool]):
    """Shows what a change does and what will be lost, and asks for confirmation."""

    AUTO_FOCUS = "#typed, #no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "Yes", id="dialog.yes"),
        Binding("n", "leave", "No", id="dialog.no"),
    ]

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def compose(self) -> ComposeResult:
        """What will be lost, the plan, the command, and the buttons."""
        change = self.change
        lines: list[Line] = []
        if change.losses:
            lines.append(("This will be lost:", Style.BAD))
            lines += [(("  ✕ ", Style.BAD), (each, Style.PLAIN)) for each in change.losses]
        if change.plan:
            lines += [""] if lines else []
            lines.append(("What will happen:", Style.MUTED))
            lines += [((f"  {at}. ", Style.MUTED), (each, Style.PLAIN)) for at, each in enumerate(change.plan, start=1)]
        lines += ["", (("$ ", Style.MUTED), (change.command, Style.ACCENT))]
        with Vertical(id="box") as box:
            box.border_title = change.title
            with VerticalScroll(id="body", can_focus=False):
                yield Static(content(*lines), id="text")
                if change.confirm_text:
                    yield Label(f"\nType {change.confirm_text} to confirm")
                    yield Input(id="typed")
            with Horizontal(id="buttons"):
                yield Button("No (n)", id="no", compact=True)
                yield Button(
                    "Yes (y)",
                    id="yes",
                    disabled=bool(change.confirm_text),
                    classes="-danger" if change.losses else "",
                    compact=True,
                )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable ``y`` if a text has to be typed."""
        return self.change.confirm_text is None if action == "yes" else True

    def action_yes(self) -> None:
        """Confirm."""
        self.dismiss(True)

    @on(Input.Changed, "#typed")
    def _typed(self, event: Input.Changed) -> None:
        self.query_one("#yes", Button).disabled = event.value != self.change.confirm_text

    @on(Input.Submitted, "#typed")
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value == self.change.confirm_text:
            self.dismiss(True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class ChoiceDialog(Dialog[str | None]):
    """A list to choose one item from, each with a description; the result is the item's name."""

    DEFAULT_CSS = """
    ChoiceDialog OptionList {
        height: auto; max-height: 20; margin: 1 0; border: none; padding: 0; background: $raised;
    }
    ChoiceDialog OptionList:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "down", "Down", show=False, id="choice.down"),
        Binding("k", "up", "Up", show=False, id="choice.up"),
    ]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._choices = title, choices

    def compose(self) -> ComposeResult:
        """The list of choices."""
        width = max(len(name) for name, _ in self._choices) + 2
        with Vertical(id="box") as box:
            box.border_title = self._title
            yield OptionList(
                *(
                    Option(content(((name.ljust(width), Style.STRONG), (description, Style.MUTED))), id=name)
                    for name, description in self._choices
                )
            )

    def action_down(self) -> None:
        """Move to the next choice."""
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        """Move to the previous choice."""
        self.query_one(OptionList).action_cursor_up()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form. ``check`` returns what is wrong with a value, or None if it is valid."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    check: Callable[[str], str | None] = lambda _: None


class FormDialog(Dialog[dict[str, str] | None]):
    """Fields that are validated while typing, and a preview of what their values will do."""

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        preview: Callable[[Mapping[str, str]], Sequence[Line]],
        submit: str = "Continue",
    ) -> None:
        super().__init__()
        self._title = title
        self._fields = fields
        self._preview = preview
        self._submit = submit

    DEFAULT_CSS = """
    FormDialog .field { height: 1; margin-top: 1; }
    FormDialog .field Input { width: 1fr; }
    FormDialog .hint { height: 1; color: $muted; }
    FormDialog .hint.-invalid { color: $error; }
    FormDialog #preview { height: auto; margin-top: 1; }
    """

    def compose(self) -> ComposeResult:
        """The fields, each with its hint or error below, the preview, and the buttons."""
        width = max((_LABEL, *(len(each.label) + 1 for each in self._fields)))
        with Vertical(id="box") as box:
            box.border_title = self._title
            with VerticalScroll(id="body", can_focus=False):
                for each in self._fields:
                    with Horizontal(classes="field"):
                        label = Label(each.label)
                        label.styles.width = width
                        yield label
                        yield Input(each.value, id=f"field-{each.name}")
                    hint = Static(each.hint, classes="hint", id=f"hint-{each.name}", markup=False)
                    hint.styles.padding = (0, 0, 0, width + 1)
                    yield hint
                yield Static(id="preview")
            with Horizontal(id="buttons"):
                yield Button(self._submit, id="submit", compact=True)
                yield Button("Cancel", id="leave", compact=True)

    def on_mount(self) -> None:
        """Validate the initial values."""
        self._check()

    @property
    def values(self) -> dict[str, str]:
        """The current values by field name."""
        return {each.name: self.query_one(f"#field-{each.name}", Input).value.strip() for each in self._fields}

    def _check(self) -> bool:
        values = self.values
        valid = True
        for each in self._fields:
            problem = each.check(values[each.name])
            hint = self.query_one(f"#hint-{each.name}", Static)
            # An empty field is not reported as an error while its hint says what is expected.
            shown = problem if values[each.name] or not each.hint else None
            hint.update(f"✕ {shown}" if shown else each.hint)
            hint.set_class(shown is not None, "-invalid")
            valid = valid and problem is None
        self.query_one("#submit", Button).disabled = not valid
        if valid:
            self.query_one("#preview", Static).update(content(*self._preview(values)))
        return valid

    @on(Input.Changed)
    def _changed(self) -> None:
        self._check()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._check():
            self.dismiss(self.values)

    @on(Button.Pressed, "#submit")
    def _go(self) -> None:
        if self._check():
            self.dismiss(self.values)

    @on(Button.Pressed, "#leave")
    def _leave(self) -> None:
        self.dismiss(None)
