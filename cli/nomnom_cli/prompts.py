"""Confirmation prompts, and errors of usage."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from nomnom_control.errors import ControlError


class UsageError(ControlError):
    """A command line with missing or contradictory arguments."""


class Declined(ControlError):  # noqa: N818 (not an error of the program)
    """The user declined, or standard input is not a terminal."""


def confirm(question: str, losses: Sequence[str], *, yes: bool, typed: str = "yes") -> None:
    """List what will be lost and ask the user to type ``typed``; raises Declined if the user does not."""
    from nomnom_cli.output import print_note

    if yes:
        return
    for each in losses:
        print_note(f"  {each}")
    if not sys.stdin.isatty():
        raise Declined("not confirmed: standard input is not a terminal; pass --yes to skip the prompt")
    print_note(f"{question} Type {typed} to continue: ", "bold", end="")
    if _answer().strip() != typed:
        raise Declined("not confirmed: nothing was changed")


def ask_secret(name: str) -> str:
    """Ask for a secret without showing it. Raises UsageError if nobody can be asked."""
    import getpass

    if not sys.stdin.isatty():
        raise UsageError(f"{name} is a secret and nobody can be asked for it: give it in a file, {name}=@PATH")
    return getpass.getpass(f"{name}: ")


def _answer() -> str:
    # asyncio's SIGINT handler only cancels the task, which does not interrupt a blocking read.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input()
    except (EOFError, KeyboardInterrupt) as ending:
        print(file=sys.stderr)  # noqa: T201 (ends the line of the prompt)
        if isinstance(ending, EOFError):
            return ""
        raise
    finally:
        signal.signal(signal.SIGINT, before)
