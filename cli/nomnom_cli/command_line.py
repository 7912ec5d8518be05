"""The command line over control's functions: ``nomnom COMMAND``."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from nomnom.errors import NomnomError
from nomnom.presentation.terminal import printable
from nomnom_cli.exit_codes import Exit

__all__ = ["Exit", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and exit: an error is one line on standard error, never a traceback."""
    if not sys.warnoptions:
        # Warnings are for developers; python -W shows them.
        warnings.simplefilter("ignore")
    from cyclopts import CycloptsError

    from nomnom_cli.application import app

    try:
        code = app(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
    except CycloptsError as error:
        _end(Exit.USAGE, f"{error} (nomnom --help lists the commands)")
    except NomnomError as error:
        _end(_code(error), str(error))
    except BrokenPipeError:
        # stdout was closed (e.g. by `head`); Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(Exit.OK) from None
    except Exception as error:  # noqa: BLE001 (last resort: one line on screen, the traceback in a file)
        _end(Exit.FAILED, f"unexpected {type(error).__name__}: {error}; details in {_keep_traceback()}")
    else:
        raise SystemExit(code if isinstance(code, Exit) else Exit.OK)


def _code(error: NomnomError) -> Exit:
    from nomnom.connections.errors import Unavailable
    from nomnom.inspection.dead_letters import FilterError
    from nomnom.settings import SettingsError
    from nomnom_cli.prompts import Declined, UsageError
    from nomnom_control.environments.catalog import EnvironmentNotFound
    from nomnom_control.environments.local.channel import NotRunning

    if isinstance(error, (UsageError, EnvironmentNotFound, FilterError, SettingsError)):
        return Exit.USAGE
    if isinstance(error, Declined):
        return Exit.REFUSED
    return Exit.NOT_RUNNING if isinstance(error, (NotRunning, Unavailable)) else Exit.FAILED


def _keep_traceback() -> Path:
    import platformdirs

    folder = platformdirs.user_log_path("nomnom", ensure_exists=True)
    place = folder / f"error-{os.getpid()}.log"
    place.write_text(traceback.format_exc())
    return place


def _end(code: Exit, text: str) -> NoReturn:
    print(printable(f"nomnom: {text}", keep="\n"), file=sys.stderr)  # noqa: T201
    raise SystemExit(code)
