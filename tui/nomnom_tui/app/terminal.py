"""The app in a real terminal: what it writes goes to a file, and it does not outlive the terminal."""

from __future__ import annotations

import logging
import os
import sys
import termios
import threading
import time

from nomnom_tui.app.application import ChooseEnvironment, FindEnvironments, FindTemplates, NomnomApp
from nomnom_tui.app.preferences import log_file
from nomnom_tui.app.session import Session

_LOOK = 2.0
_HUNG_UP = 129
"""What a shell tells of a program that SIGHUP ended."""


def run(
    choose: ChooseEnvironment | None = None,
    *,
    readonly: bool = False,
    known: FindEnvironments | None = None,
    templates: FindTemplates | None = None,
) -> int:
    """Run the app until the person leaves; returns the exit code.

    ``choose`` makes the environment to begin with, after the first paint: what it imports costs nothing before.
    ``known`` finds the others that can be chosen, ``blueprints`` what can be made; ``readonly`` refuses every change.
    """
    _log_to_file()
    threading.Thread(target=_watch_terminal, name="terminal watch", daemon=True).start()
    app = NomnomApp(Session(readonly=readonly), choose=choose, known=known, templates=templates)
    app.run()
    return app.return_code or 0


def _log_to_file() -> None:
    """Nothing may be written to the terminal while the app owns it: logs go to a file of bounded size."""
    from logging.handlers import RotatingFileHandler

    path = log_file()
    root = logging.getLogger()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = RotatingFileHandler(path, maxBytes=1024 * 1024, backupCount=2, delay=True)
    except OSError:
        handler = logging.NullHandler()
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _watch_terminal() -> None:
    """End the process when its terminal is gone.

    A closed terminal sends SIGHUP to its own session alone; to others reading tells it, and writing: Textual's threads
    stop there, and its event loop waits for them for ever. Nothing can be given back to a terminal that is gone.
    """
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    if not os.isatty(descriptor):
        return
    while True:
        time.sleep(_LOOK)
        try:
            termios.tcgetattr(descriptor)
        except termios.error:
            logging.getLogger(__name__).warning("the terminal is gone")
            logging.shutdown()
            os._exit(_HUNG_UP)
