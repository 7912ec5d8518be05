"""The command line over control's functions: ``nomnom COMMAND``."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from enum import IntEnum
from pathlib import Path

from nomnom.errors import NomnomError


class Exit(IntEnum):
    """What the exit code means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTLY = 3
    """Some of what was asked was done."""
    NOT_RUNNING = 4
    REFUSED = 5
    """Not confirmed."""
    INTERRUPTED = 130


class Stop(Exception):  # noqa: N818 (an end, not an error)
    """End the command with this code; what there is to say has been said."""

    def __init__(self, code: Exit) -> None:
        super().__init__(code.name)
        self.code = code


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and exit: an error is one line on standard error, never a traceback."""
    from cyclopts import CycloptsError

    from nomnom_control.command_line.program import app

    try:
        app(sys.argv[1:] if arguments is None else arguments)
    except Stop as stop:
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
    except CycloptsError as error:
        _end(Exit.USAGE, f"{error} (nomnom --help lists the commands)")
    except NomnomError as error:
        from nomnom_control.command_line.target import UsageError
        from nomnom_control.connections import Away
        from nomnom_control.local.channel import NotRunning

        if isinstance(error, UsageError):
            _end(Exit.USAGE, str(error))
        _end(Exit.NOT_RUNNING if isinstance(error, (NotRunning, Away)) else Exit.FAILED, str(error))
    except BrokenPipeError:
        # Who read the output has left; Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(Exit.OK) from None
    except Exception as error:  # noqa: BLE001 (the last edge: a person sees a line, and where the rest is)
        place = Path(tempfile.gettempdir()) / f"nomnom-error-{os.getpid()}.log"
        place.write_text(traceback.format_exc())
        _end(Exit.FAILED, f"unexpected {type(error).__name__}: {error}; details in {place}")


def _end(code: Exit, text: str) -> None:
    print(f"nomnom: {text}", file=sys.stderr)  # noqa: T201
    raise SystemExit(code)
