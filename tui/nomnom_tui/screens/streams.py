"""Streams: live reports of each, and its messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from nomnom.presentation import figures
from nomnom.tasks import end
from nomnom_control.environments import Progress, Step
from nomnom_tui.app.changes import Change
from nomnom_tui.app.view import View
from nomnom_tui.screens.stream_messages import StreamMessagesView, message_columns
from nomnom_tui.text.rates import RateMeter
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import PropertyTable
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import StoredMessage, StreamReport

_FULL = 0.9
"""Share of a stream's limit from which it is highlighted."""
_MANY = 10_000
"""A purge of so many messages takes seconds: its progress is shown."""
_NEWEST = 50
_INTERVAL = 2.0


class StreamsView(View):
    """One row per stream, like ``nats stream report``; below it the details of the one under the cursor."""

    CRUMB = "Streams"
    CHANGES = frozenset({"purge"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "consumers", "Consumers", id="streams.consumers"),
        Binding("P", "purge", "Purge", id="streams.purge"),
    ]
    DEFAULT_CSS = """
    StreamsView #streams { height: auto; max-height: 40%; }
    StreamsView #streams LiveTable { height: auto; min-height: 3; max-height: 14; }
    StreamsView #details { width: 1fr; }
    StreamsView #newest { width: 2fr; }
    StreamsView.-narrow #newest { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._meter = RateMeter()
        self._rates: dict[str, float | None] = {}
        self._detailed: StreamReport | None = None
        self._table: LiveTable[StreamReport] = LiveTable(
            self._columns(),
            key=lambda each: each.name,
            id="table",
            empty="no streams; run nomnom setup",
            enter_label="Messages",
        )
        self._properties = PropertyTable(id="about")
        self._newest: LiveTable[StoredMessage] = LiveTable(
            message_columns(), key=lambda each: each.sequence, id="latest", empty="no messages", enter_label="Open"
        )

    def content(self) -> ComposeResult:
        """Streams, the details of one and, if wide enough, its newest messages."""
        yield Panel("Streams", self._table, id="streams", loading_text="loading streams")
        with Horizontal(id="below"):
            yield Panel("Details", self._properties, id="details")
            yield Panel("Newest messages", self._newest, id="newest")

    def _columns(self) -> list[Column[StreamReport]]:
        return [
            Column("Stream", lambda each: (each.name, Style.STRONG), 12, share=1),
            Column("Messages", lambda each: figures.count(each.state.messages), 9, right=True),
            Column("In", lambda each: figures.rate(self._rates.get(each.name)), 8, right=True),
            Column("Bytes", lambda each: figures.size(each.state.bytes), 9, right=True),
            Column("Limit", _fill, 12),
            Column("Oldest", lambda each: figures.age(each.state.oldest), 7, right=True),
            Column("Consumers", lambda each: figures.count(each.state.consumer_count), 9, right=True, rank=1),
            Column("Subjects", lambda each: figures.count(each.state.num_subjects), 9, right=True, rank=3),
            Column("Deleted", lambda each: figures.count(each.state.num_deleted), 9, right=True, rank=2),
            Column("Lost", _lost, 5, right=True, rank=2),
            Column("Sequences", _sequences, 25, rank=5),
            Column("Storage", lambda each: str(each.config.get("storage", "")), 7, rank=4),
            Column("Retention", lambda each: str(each.config.get("retention", "")), 9, rank=4),
            Column("Placement", _placement, 9, rank=7),
            Column("API", _level, 3, right=True, rank=7),
            Column("Replicas", _replicas, 11, rank=6),
        ]

    def begin(self) -> None:
        """Load the reports every two seconds, and the newest messages if there is room for them."""
        self._table.focus()
        self.subscribe("streams", _INTERVAL, self._load, self._show, self.query_one("#streams", Panel))
        self.subscribe("newest", 2.0, self._load_newest, self._show_newest, self.query_one("#newest", Panel))

    def environment_changed(self) -> None:
        """Clear the streams of the previous environment."""
        self._meter.clear()
        self._rates = {}
        self._table.show([])
        self._newest.show([])
        self._properties.show_properties([])

    async def _load(self) -> tuple[list[StreamReport], StreamReport | None]:
        jetstream = (await self.session.pipeline()).jetstream
        reports = await jetstream.streams()
        row = self._table.current or next(iter(reports), None)
        # Some properties (such as the server version) are only returned for a single stream.
        known = row is not None and any(each.name == row.name for each in reports)
        return reports, await jetstream.stream(row.name) if row is not None and known else None

    def _show(self, found: tuple[list[StreamReport], StreamReport | None]) -> None:
        reports, self._detailed = found
        for each in reports:
            self._rates[each.name] = self._meter.read(each.name, each.state.last_seq, each.ts or figures.present())
        self._table.show(reports)
        self._show_details()

    async def _load_newest(self) -> Sequence[StoredMessage]:
        if (row := self._table.current) is None or not self.has_class("-wide"):
            return ()
        jetstream = (await self.session.pipeline()).jetstream
        return (await jetstream.messages(row.name, limit=_NEWEST, newest_first=True)).messages

    def _show_newest(self, messages: Sequence[StoredMessage]) -> None:
        self._newest.show(messages)

    @on(LiveTable.Highlighted, "#table")
    def _highlighted(self, event: LiveTable.Highlighted) -> None:
        self._show_details()
        if event.row is not None and (self._detailed is None or self._detailed.name != event.row.name):
            self._feeds["streams"].refresh()
            self._newest.show([])
            self._feeds["newest"].refresh()

    def _show_details(self) -> None:
        from nomnom_control.session.jetstream.streams import stream_properties

        row = self._table.current
        detailed = (
            self._detailed
            if row is not None and self._detailed is not None and self._detailed.name == row.name
            else row
        )
        self._properties.show_properties([] if detailed is None else stream_properties(detailed))
        name = "" if row is None else row.name
        self.query_one("#details", Panel).retitle(name or "Details")
        self.query_one("#newest", Panel).retitle("Newest messages", *([f"of {name}"] if name else []))

    @on(LiveTable.Chosen, "#table")
    def _chosen(self, event: LiveTable.Chosen) -> None:
        self.nomnom.push_screen(StreamMessagesView(event.row.name))

    @on(LiveTable.Chosen, "#latest")
    def _message_chosen(self, event: LiveTable.Chosen) -> None:
        from nomnom_tui.screens.stored_message import StoredMessageView

        self.nomnom.push_screen(StoredMessageView(event.row))

    def action_consumers(self) -> None:
        """Go to the consumers."""
        self.nomnom.action_go("consumers")

    def action_purge(self) -> None:
        """Purge the stream, after its name was typed as confirmation."""
        if (row := self._table.current) is None:
            return
        self.nomnom.perform(purge_change(self, row))


def purge_change(view: View, report: StreamReport) -> Change:
    """Return the change that purges a stream, with what will be lost."""
    name, state = report.name, report.state

    async def purge(progress: Callable[[int, int], None] | None = None) -> None:
        await (await view.session.pipeline()).jetstream.purge(
            name, confirm=name, last=state.last_seq, progress=progress
        )

    pending = str(report.config.get("retention")) == "workqueue"
    meaning = (
        "accepted messages that are not written yet; they cannot be recovered"
        if pending
        else "the payload and headers of every dead letter; they cannot be recovered"
    )
    oldest = f", oldest {figures.age(state.oldest)}" if state.oldest else ""
    return Change(
        f"Purge {name}",
        view.session.command(f"stream purge {name}"),
        act=purge if state.messages < _MANY else None,
        begin=None if state.messages < _MANY else lambda: _steps(purge),
        losses=(f"{figures.count(state.messages)} messages of {name} ({figures.size(state.bytes)}{oldest})", meaning),
        confirm_text=name,
        success=f"{name} is purged",
    )


async def _steps(purge: Callable[[Callable[[int, int], None]], Coroutine[Any, Any, None]]) -> AsyncIterator[Progress]:
    """Purge many messages, showing how many statuses are recorded."""
    step, changed = "record statuses, then purge", asyncio.Event()
    text = ""

    def progress(done: int, total: int) -> None:
        nonlocal text
        text = f"{done:,} of {total:,}"
        changed.set()

    yield Progress(step, Step.STARTED)
    purging = asyncio.create_task(purge(progress))
    purging.add_done_callback(lambda _: changed.set())
    try:
        while not purging.done():
            await changed.wait()
            changed.clear()
            yield Progress(step, Step.STARTED, text)
        await purging
    finally:
        await end(purging)
    yield Progress(step, Step.DONE, text)


def _fill(report: StreamReport) -> Line:
    fill = report.fill
    if fill is None:
        return ("no limit", Style.MUTED)
    filled = min(6, round(fill * 6))
    style = Style.BAD if fill >= _FULL else Style.ACCENT
    mark = "!" if fill >= _FULL else " "
    return [("━" * filled, style), ("─" * (6 - filled), Style.FAINT), (f"{fill:>5.0%}{mark}", Style.PLAIN)]


def _lost(report: StreamReport) -> Line:
    lost = len(report.state.lost.msgs or ()) if report.state.lost else 0
    return (figures.count(lost), Style.BAD if lost else Style.PLAIN)


def _sequences(report: StreamReport) -> Line:
    return [(figures.count(report.state.first_seq), Style.PLAIN), (" … ", Style.MUTED),
            (figures.count(report.state.last_seq), Style.PLAIN)]  # fmt: skip


def _placement(report: StreamReport) -> Line:
    from nomnom_control.session.jetstream.streams import placement

    return placement(report.config.get("placement")) or (figures.NONE, Style.MUTED)


def _level(report: StreamReport) -> Line:
    from nomnom_control.session.jetstream.streams import api_level

    return api_level(report.config)


def _replicas(report: StreamReport) -> Line:
    from nomnom_control.session.jetstream.streams import replicas

    return replicas(report.cluster) or figures.count(int(report.config.get("num_replicas", 1)))
