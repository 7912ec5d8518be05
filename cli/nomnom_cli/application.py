"""The commands, by name. Their modules import what is heavy when they are called: help and completion stay quick."""

from __future__ import annotations

from cyclopts import App, Group

import nomnom
from nomnom_cli.commands import (
    cluster,
    completion,
    demo,
    dlq,
    ingest,
    logs,
    messages,
    replays,
    rollouts,
    rows,
    running,
    schemas,
    streams,
)

_RUN = Group("Run", sort_key=1)
_SEND = Group("Send and follow", sort_key=2)
_REPAIR = Group("Look and repair", sort_key=3)
_SCALE = Group("Scale and change", sort_key=4)
_CLUSTERS = Group("Kubernetes", sort_key=5)
_ELSE = Group("Else", sort_key=9)

app = App(
    name="nomnom",
    version=nomnom.__version__,
    version_flags=["--version"],
    help=(
        "Takes pipe-delimited records over HTTP, keeps them in NATS JetStream, writes them to PostgreSQL.\n\n"
        "Without a command: the terminal app.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 4 nothing runs or answers, 5 not confirmed, "
        "130 interrupted."
    ),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)

# They come first in the help otherwise, in a group of their own.
for _flag in ("--help", "--version"):
    app[_flag].group = _ELSE

for _command in (running.up, running.down, running.status, logs.logs, running.destroy, running.setup):
    app.command(_command, group=_RUN)
for _command in (ingest.ingest, demo.demo, messages.post, messages.message):
    app.command(_command, group=_SEND)
for _command in (messages.messages, rows.entities, rows.rows):
    app.command(_command, group=_REPAIR)
for _command in (rollouts.scale, rollouts.restart, rollouts.config, rollouts.history, rollouts.rollback):
    app.command(_command, group=_SCALE)
app.command(completion.completion_of(app), group=_ELSE)
app.command(completion.version, group=_ELSE)

_dead_letters = App(name="dlq", help="Dead letters: what could not be written, and what to do about it.", group=_REPAIR)
_dead_letters.command(dlq.list_dead_letters, name="ls")
_dead_letters.command(dlq.groups)
_dead_letters.command(dlq.show)
_dead_letters.command(replays.dry_run)
_dead_letters.command(replays.replay)
_dead_letters.command(replays.undo)
_dead_letters.command(replays.delete)
_dead_letters.command(dlq.audit)

_stream = App(name="stream", help="Streams and the messages in them; looking takes none away.", group=_REPAIR)
_stream.command(streams.list_streams, name="ls")
_stream.command(streams.stream_info, name="info")
_stream.command(streams.stream_messages, name="messages")
_stream.command(streams.peek)
_stream.command(streams.purge)

_consumer = App(name="consumer", help="The workers' consumer.", group=_REPAIR)
_consumer.command(streams.list_consumers, name="ls")
_consumer.command(streams.consumer_info, name="info")
_consumer.command(streams.pause)
_consumer.command(streams.resume)

_schema = App(name="schema", help="Schema files: what a deployment's records are.", group=_ELSE)
_schema.command(schemas.list_schemas, name="ls")
_schema.command(schemas.show_schema, name="show")
_schema.command(schemas.check_schema, name="check")

_kind = App(name="kind", help="kind clusters: whole pipelines on this machine's docker.", group=_CLUSTERS)
_kind.command(cluster.create)
_kind.command(cluster.delete)
_kind.command(cluster.load)

_env = App(name="env", help="Environments: where pipelines run.", group=_CLUSTERS)
_env.command(cluster.list_environments, name="ls")
_env.command(cluster.use)
_env.command(cluster.add)
_env.command(cluster.forget)

_images = App(name="images", help="The pipeline's images.", group=_CLUSTERS)
_images.command(cluster.build)

for _command in (cluster.install, cluster.upgrade, cluster.uninstall):
    app.command(_command, group=_CLUSTERS)

for _part in (_dead_letters, _stream, _consumer, _schema, _kind, _env, _images):
    app.command(_part)
