"""What can be typed after ``:`` and chosen from the palette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass


def _none(_: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """A command by name. ``run`` gets what was typed after the name; ``complete`` offers values for it."""

    name: str
    summary: str
    run: Callable[[str], Awaitable[None] | None]
    argument: str = ""
    """What may follow, for people: ``N``, ``NAME``; empty where nothing may."""
    complete: Callable[[str], Sequence[str]] = _none
    aliases: tuple[str, ...] = ()
    palette: bool = True
    """Whether the palette offers it (not where it needs an argument)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its other names."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Completion:
    """One line that typing could become."""

    text: str
    shown: str
    summary: str


def completions(typed: str, commands: Iterable[Command]) -> list[Completion]:
    """What the text could become, best first: by beginning, then by containing."""
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
    """The command of this name; else the only one whose name begins so."""
    known = list(commands)
    exact = next((each for each in known if name in each.names), None)
    if exact is not None:
        return exact
    begun = [each for each in known if any(one.startswith(name) for one in each.names)]
    return begun[0] if name and len(begun) == 1 else None


def _rank(name: str, typed: str) -> int | None:
    if name.startswith(typed):
        return 0
    return 1 if typed in name else None
