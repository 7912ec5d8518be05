"""Questions before something is lost, and command lines that do not say what is needed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from nomnom_control.errors import ControlError


class UsageError(ControlError):
    """A command line that does not say what is needed."""


class Declined(ControlError):  # noqa: N818 (an answer)
    """A person said no, or nobody could be asked."""


def confirm(question: str, losses: Sequence[str], *, yes: bool, typed: str = "yes") -> None:
    """Name what will change and ask for ``typed``; raises Declined where the answer is another or nobody can answer."""
    from nomnom_cli.output import say

    if yes:
        return
    for each in losses:
        say(f"  {each}")
    if not sys.stdin.isatty():
        raise Declined("not confirmed: say --yes to do it without a question")
    say(f"{question} Type {typed} to go on: ", "bold", end="")
    if _answer().strip() != typed:
        raise Declined("not confirmed: nothing was changed")


def ask_secret(name: str) -> str:
    """Ask for a secret without showing it. Raises UsageError if nobody can be asked."""
    import getpass

    if not sys.stdin.isatty():
        raise UsageError(f"{name} is a secret and nobody can be asked for it: give it in a file, {name}=@PATH")
    return getpass.getpass(f"{name}: ")


def _answer() -> str:
    # asyncio's handler only cancels the task, which a read that blocks does not notice.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input()
    except (EOFError, KeyboardInterrupt) as ending:
        print(file=sys.stderr)  # noqa: T201 (the question's line has no end)
        if isinstance(ending, EOFError):
            return ""
        raise
    finally:
        signal.signal(signal.SIGINT, before)
