"""The app in a real terminal: it logs to a file and exits when the terminal is gone."""

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

_CHECK_INTERVAL = 2.0
_SIGHUP_EXIT_CODE = 129
"""Exit status that a shell reports after SIGHUP."""


def run(
    choose: ChooseEnvironment | None = None,
    *,
    readonly: bool = False,
    known: FindEnvironments | None = None,
    templates: FindTemplates | None = None,
) -> int:
    """Run the app until the user quits; returns the exit code.

    ``choose`` returns the initial environment; it is called after the first paint, so that its imports do not delay it.
    ``known`` lists the other environments, ``templates`` what can be created; ``readonly`` refuses every change.
    """
    _log_to_file()
    threading.Thread(target=_watch_terminal, name="terminal watch", daemon=True).start()
    app = NomnomApp(Session(readonly=readonly), choose=choose, known=known, templates=templates)
    app.run()
    return app.return_code or 0


def _log_to_file() -> None:
    """Send all logs to a file of bounded size: nothing may write to the terminal while the app owns it."""
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
    """Exit the process when its terminal is gone.

    A closed terminal sends SIGHUP to its own session only. In another session Textual's reader and writer threads stop
    on the error and its event loop waits for them forever. There is no terminal left to restore.
    """
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    if not os.isatty(descriptor):
        return
    while True:
        time.sleep(_CHECK_INTERVAL)
        try:
            termios.tcgetattr(descriptor)
        except termios.error:
            logging.getLogger(__name__).warning("the terminal is gone")
            logging.shutdown()
            os._exit(_SIGHUP_EXIT_CODE)
