"""Commands that can be typed after ``:`` or picked from the palette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass


def _none(_: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """A named command. ``run`` receives the text typed after the name; ``complete`` suggests values for it."""

    name: str
    summary: str
    run: Callable[[str], Awaitable[None] | None]
    argument: str = ""
    """Placeholder of the argument, such as ``N`` or ``NAME``; empty if there is none."""
    complete: Callable[[str], Sequence[str]] = _none
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Completion:
    """One possible completion of the typed line."""

    text: str
    shown: str
    summary: str


def completions(typed: str, commands: Iterable[Command]) -> list[Completion]:
    """Return completions of the typed text: prefix matches first, then substring matches."""
    name, space, argument = typed.lstrip().partition(" ")
    if not space:
        ranked: list[tuple[int, str, Completion]] = []
        for each in commands:
            found = [rank for one in each.names if (rank := _rank(one, name)) is not None]
            if found:
                shown = f"{each.name} {each.argument}".strip()
                text = each.name + (" " if each.argument else "")
                ranked.append((min(found), each.name, Completion(text, shown, each.summary)))
        return [each for *_, each in sorted(ranked, key=lambda entry: entry[:2])]
    command = find(name, commands)
    if command is None:
        return []
    values = [value for value in command.complete(argument) if argument.lower() in value.lower()]
    values.sort(key=lambda value: not value.lower().startswith(argument.lower()))
    return [Completion(f"{name} {value}", value, "") for value in values]


def find(name: str, commands: Iterable[Command]) -> Command | None:
    """Return the command of this name, or the only one whose name starts with it."""
    known = list(commands)
    exact = next((each for each in known if name in each.names), None)
    if exact is not None:
        return exact
    matching = [each for each in known if any(one.startswith(name) for one in each.names)]
    return matching[0] if name and len(matching) == 1 else None


def _rank(name: str, typed: str) -> int | None:
    if name.startswith(typed):
        return 0
    return 1 if typed in name else None
