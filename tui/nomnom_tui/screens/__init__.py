"""The numbered screens, and how to add one.

A screen is a module here with one :class:`nomnom_tui.app.view.View`, and one line in :data:`ROUTES` below::

    class ConsumersView(View):
        CRUMB = "Consumers"                        # its name in the breadcrumbs
        CHANGES = frozenset({"pause"})             # actions that are disabled in a read-only session
        BINDINGS = [Binding("p", "pause", "Pause", id="consumers.pause")]   # ids: <screen>.<action>; help lists them

        def content(self) -> ComposeResult:        # the widgets between the bars
            self.table = LiveTable([Column("Name", lambda c: c.name, 12, share=1), ...], key=lambda c: c.name)
            yield Panel("Consumers", self.table, id="consumers", loading_text="loading consumers")

        def begin(self) -> None:                   # called once after the widgets are mounted
            panel = self.query_one("#consumers", Panel)
            self.subscribe("consumers", 2.0, self._load, self.table.show, panel)

        async def _load(self) -> list[ConsumerInfo]:
            return await consumers(await self.session.pipeline())     # a function of control; may raise ControlError

        def action_pause(self) -> None:
            if (row := self.table.current) is not None:
                self.nomnom.perform(Change(f"Pause {row.name}", f"nomnom consumer pause {row.name}", act=...))

Building blocks:

- ``subscribe(name, interval, load, deliver, panel)``: data. Loads never overlap, pause while the view is hidden, and
  time out; the panel shows errors with the next attempt. Keep the returned feed and call ``feed.refresh()`` when a
  filter or page changed.
- ``self.environment``, ``self.session``: the selected environment. ``self.nomnom.heartbeat``: components and scaling.
- ``LiveTable`` and ``Column`` (:mod:`nomnom_tui.widgets.table`): any number of rows, compared by key; ``Highlighted``,
  ``Chosen``, ``Marked`` messages; columns with ``share`` grow, those of the highest ``rank`` are hidden first.
- ``Panel`` (:mod:`nomnom_tui.widgets.panel`); ``Style``, ``content`` (:mod:`nomnom_tui.text.styles`): text styled by
  meaning, not by colour.
- ``figures``: counts, rates, sizes, ages, clock, sparkline. :mod:`nomnom_tui.widgets.plot`: lines over time.
- ``self.nomnom.perform(Change(...))``: the only way to change anything. It refuses in read-only sessions, asks for
  confirmation (``losses``, ``plan``, ``confirm_text``), shows steps (``begin``), and reports the result and the
  equivalent command. Use ``await self.nomnom.carry_out(change)`` in a worker that needs the result.
- ``self.nomnom.push_screen(SomeDetailView(...))``: opens a detail view; ``esc`` returns. Views are not recreated: they
  keep their state while hidden.
- ``FormDialog``, ``ConfirmDialog``, ``Dialog`` (:mod:`nomnom_tui.widgets.dialogs`); ``commands()``: the commands of
  the view after ``:``.

Import expensive modules (plots, control's pipeline) inside functions: the first paint has to take under 0.5 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from nomnom_tui.app.view import View


@dataclass(frozen=True, slots=True)
class Route:
    """A numbered screen: its key, its name on the command line, its titles, and the module and class of its view."""

    key: str
    name: str
    title: str
    short: str
    module: str
    view: str
    summary: str
    aliases: tuple[str, ...] = ()

    def open(self) -> View:
        """Import the module and create the view."""
        view = getattr(import_module(f"{__name__}.{self.module}"), self.view)
        return cast("Callable[[], View]", view)()


ROUTES: tuple[Route, ...] = (
    Route("1", "environments", "Environments", "Envs", "environments", "EnvironmentsView",
          "where pipelines run: start, stop, select", ("env", "envs")),
    Route("2", "overview", "Overview", "Over", "overview", "OverviewView",
          "the state of the pipeline and its alerts"),
    Route("3", "streams", "Streams", "Strm", "streams", "StreamsView",
          "JetStream streams and their messages", ("stream",)),
    Route("4", "consumers", "Consumers", "Cons", "consumers", "ConsumersView",
          "JetStream consumers: lag, pause and resume", ("consumer",)),
    Route("5", "dead-letters", "Dead letters", "Dead", "dead_letters", "DeadLettersView",
          "failed messages: inspect, fix, dry-run, replay", ("dlq", "letters")),
    Route("6", "workers", "Workers", "Work", "workers", "WorkersView",
          "autoscaling, manual scaling, restart, rollback", ("scaling",)),
    Route("7", "messages", "Messages", "Msgs", "messages", "MessagesView",
          "recent messages; post one, send a file, follow one", ("message", "msgs")),
    Route("8", "logs", "Logs", "Logs", "logs", "LogsView",
          "logs of all components"),
    Route("9", "entities", "Entities", "Ents", "entities", "EntitiesView",
          "tables, rows and sizes; messages by status and by hour", ("entity", "rows", "database", "db")),
)  # fmt: skip
