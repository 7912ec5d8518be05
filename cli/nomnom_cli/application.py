"""All commands by name. Their modules import heavy libraries when called, so that help and completion stay fast."""

from __future__ import annotations

from cyclopts import App, Group

import nomnom
from nomnom_cli.commands import (
    account,
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
_INSPECT = Group("Inspect and repair", sort_key=3)
_SCALE = Group("Scale and change", sort_key=4)
_CLUSTERS = Group("Kubernetes", sort_key=5)
_OTHER = Group("Other", sort_key=9)

app = App(
    name="nomnom",
    version=nomnom.__version__,
    version_flags=["--version"],
    help=(
        "Ingest pipe-delimited records over HTTP, queue them in NATS JetStream and write them to PostgreSQL.\n\n"
        "Without a command, nomnom opens the terminal app.\n\n"
        "Exit codes: 0 success, 1 failure, 2 usage error, 3 partial success, 4 not running or unavailable, "
        "5 not confirmed, 130 interrupted."
    ),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)

# Otherwise the help lists them first, in a group of their own.
for _flag in ("--help", "--version"):
    app[_flag].group = _OTHER

for _command in (running.up, running.down, running.status, logs.logs, running.destroy, running.setup):
    app.command(_command, group=_RUN)
for _command in (ingest.ingest, demo.demo, messages.post, messages.message):
    app.command(_command, group=_SEND)
for _command in (messages.messages, account.account, rows.entities, rows.rows):
    app.command(_command, group=_INSPECT)
for _command in (rollouts.scale, rollouts.restart, rollouts.config, rollouts.history, rollouts.rollback):
    app.command(_command, group=_SCALE)
app.command(completion.completion_of(app), group=_OTHER)
app.command(completion.version, group=_OTHER)

_dead_letters = App(name="dlq", help="Inspect, fix, replay and delete dead letters.", group=_INSPECT)
_dead_letters.command(dlq.list_dead_letters, name="ls")
_dead_letters.command(dlq.groups)
_dead_letters.command(dlq.show)
_dead_letters.command(replays.dry_run)
_dead_letters.command(replays.replay)
_dead_letters.command(replays.undo)
_dead_letters.command(replays.delete)
_dead_letters.command(dlq.audit)

_stream = App(name="stream", help="Inspect streams and their messages (read-only), and purge them.", group=_INSPECT)
_stream.command(streams.list_streams, name="ls")
_stream.command(streams.stream_info, name="info")
_stream.command(streams.stream_messages, name="messages")
_stream.command(streams.peek)
_stream.command(streams.purge)

_consumer = App(name="consumer", help="Inspect, pause and resume the workers' consumer.", group=_INSPECT)
_consumer.command(streams.list_consumers, name="ls")
_consumer.command(streams.consumer_info, name="info")
_consumer.command(streams.pause)
_consumer.command(streams.resume)

_schema = App(name="schema", help="List, show and validate schema files.", group=_OTHER)
_schema.command(schemas.list_schemas, name="ls")
_schema.command(schemas.show_schema, name="show")
_schema.command(schemas.check_schema, name="check")

_kind = App(name="kind", help="Create and delete kind clusters that run a pipeline.", group=_CLUSTERS)
_kind.command(cluster.create)
_kind.command(cluster.delete)
_kind.command(cluster.load)

_env = App(name="env", help="Manage the environments in which pipelines run.", group=_CLUSTERS)
_env.command(cluster.list_environments, name="ls")
_env.command(cluster.use)
_env.command(cluster.add)
_env.command(cluster.forget)

_images = App(name="images", help="Build the container images.", group=_CLUSTERS)
_images.command(cluster.build)

for _command in (cluster.install, cluster.upgrade, cluster.uninstall):
    app.command(_command, group=_CLUSTERS)

for _part in (_dead_letters, _stream, _consumer, _schema, _kind, _env, _images):
    app.command(_part)
