"""The numbered screens, and how to add one.

A screen is a module here with one :class:`nomnom_tui.app.view.View`, and one line in :data:`PLACES` below::

    class ConsumersView(View):
        CRUMB = "Consumers"                        # its name in the breadcrumbs
        CHANGES = frozenset({"pause"})             # actions that a read-only session refuses
        BINDINGS = [Binding("p", "pause", "Pause", id="consumers.pause")]   # ids: <screen>.<action>; help lists them

        def content(self) -> ComposeResult:        # the widgets between the frame's bars
            self.table = LiveTable([Column("Name", lambda c: c.name, 12, share=1), ...], key=lambda c: c.name)
            yield Panel("Consumers", self.table, id="consumers", awaits="asking JetStream")

        def begin(self) -> None:                   # called once, the widgets are there
            panel = self.query_one("#consumers", Panel)
            self.subscribe("consumers", 2.0, self._load, self.table.show, panel)

        async def _load(self) -> list[ConsumerInfo]:
            return await consumers(await self.session.pipeline())     # a function of control; may raise ControlError

        def action_pause(self) -> None:
            if (row := self.table.current) is not None:
                self.nomnom.perform(Change(f"Pause {row.name}", f"nomnom consumer pause {row.name}", act=...))

What there is to use:

- ``subscribe(name, interval, load, deliver, panel)``: data. Loads never overlap, stop while nobody looks, time out;
  trouble is shown in the panel with the next try. Keep the feed that it returns and call ``feed.refresh()`` when a
  filter or page changed.
- ``self.environment``, ``self.session``: what was chosen. ``self.nomnom.pulse``: components and scaling, for all.
- ``LiveTable`` and ``Column`` (:mod:`nomnom_tui.widgets.table`): any number of rows, compared by key; ``Highlighted``,
  ``Chosen``, ``Marked`` messages; columns with ``share`` grow, those of the highest ``rank`` go when it is narrow.
- ``Panel`` (:mod:`nomnom_tui.widgets.panel`); ``Style``, ``content`` (:mod:`nomnom_tui.text.styles`): text by
  meaning, not by colour.
- ``figures``: counts, rates, sizes, ages, clock, sparkline. :mod:`nomnom_tui.widgets.plot`: lines over time.
- ``self.nomnom.perform(Change(...))``: the only way to change anything: refuses in read-only sessions, asks where
  something is lost (``loses``, ``typed``), shows steps (``begin``), tells the outcome and the equivalent command.
  ``await self.nomnom.carry_out(change)`` in a worker where the answer matters.
- ``self.nomnom.push_screen(SomeDetailView(...))``: a detail; ``esc`` comes back, breadcrumbs show the way. A view is
  not made again: its state is kept while it is not seen.
- ``FormDialog``, ``AskDialog``, ``Dialog`` (:mod:`nomnom_tui.widgets.dialogs`); ``commands()``: what ``:`` offers in
  the view.

Import what is heavy (plots, control's pipeline) inside the function that needs it: the first paint has 0.5 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from nomnom_tui.app.view import View


@dataclass(frozen=True, slots=True)
class Place:
    """A numbered screen: its key, its name on the command line, its title, a shorter one, and where its view is."""

    key: str
    name: str
    title: str
    short: str
    module: str
    view: str
    summary: str
    aliases: tuple[str, ...] = ()

    def open(self) -> View:
        """Make the view; its module is imported only now."""
        made = getattr(import_module(f"{__name__}.{self.module}"), self.view)
        return cast("Callable[[], View]", made)()


PLACES: tuple[Place, ...] = (
    Place("1", "environments", "Environments", "Envs", "environments", "EnvironmentsView",
          "where pipelines run: start, stop, choose", ("env", "envs")),
    Place("2", "overview", "Overview", "Over", "overview", "OverviewView",
          "the pipeline as it flows, and what needs attention"),
    Place("3", "streams", "Streams", "Strm", "streams", "StreamsView",
          "JetStream's streams and the messages in them", ("stream",)),
    Place("4", "consumers", "Consumers", "Cons", "consumers", "ConsumersView",
          "who takes messages; pause and resume", ("consumer",)),
    Place("5", "dead-letters", "Dead letters", "Dead", "dead_letters", "DeadLettersView",
          "what could not be written: see, edit, try out, replay", ("dlq", "letters")),
    Place("6", "workers", "Workers", "Work", "workers", "WorkersView",
          "scaling: lag, policy, decisions; scale, restart, roll back", ("scaling",)),
    Place("7", "messages", "Messages", "Msgs", "messages", "MessagesView",
          "post one, send a file, follow one; those answered last", ("message", "msgs")),
    Place("8", "logs", "Logs", "Logs", "logs", "LogsView",
          "all components at once"),
    Place("9", "database", "Database", "Data", "database", "DatabaseView",
          "the rows that messages became; their status by hour", ("db", "entities", "rows")),
)  # fmt: skip
