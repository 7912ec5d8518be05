import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { body, client, type MessageDetail } from "../api/client";
import { duration, heading, none, timestamp } from "../format";
import { statuses, superseded, terms } from "../generated/words";
import { ErrorState, LoadingState } from "../components/states";
import { StatusLabel } from "../components/StatusLabel";

const EVENT_ICONS: Record<MessageDetail["timeline"][number]["event"], string> = {
  accepted: statuses.accepted.sign,
  attempt_failed: statuses.failed.sign,
  completed: statuses.completed.sign,
  superseded: superseded.sign,
  dead_letter: statuses.dlq.sign,
  deleted: statuses.deleted.sign,
  purged: statuses.purged.sign,
  expired: statuses.expired.sign,
  operator: "✎",
};
const EVENT_LABELS: Record<MessageDetail["timeline"][number]["event"], string> = {
  accepted: "Accepted",
  attempt_failed: "Attempt failed",
  completed: "Completed",
  superseded: "Superseded",
  dead_letter: "Became a dead letter",
  deleted: "Deleted",
  purged: "Purged",
  expired: "Expired",
  operator: "Operator action",
};

/** One message: its status, timeline and rows written. Refreshed until it is completed. */
export function Message({ id }: { id: string }) {
  const query = useQuery({
    queryKey: ["message", id],
    queryFn: () => body(client.GET("/api/messages/{id}", { params: { path: { id } } })),
    refetchInterval: (state) => (state.state.data?.status === "completed" ? false : 1_000),
  });
  return (
    <section className="panel">
      <p className="breadcrumbs">
        <Link href="/messages">Messages</Link> <span aria-hidden="true">/</span> <span className="mono">{id.slice(0, 8)}…</span>
      </p>
      {query.isPending ? (
        <LoadingState rows={6} />
      ) : query.isError ? (
        <ErrorState error={query.error} retry={() => void query.refetch()} />
      ) : (
        <Detail message={query.data} />
      )}
    </section>
  );
}

function Detail({ message }: { message: MessageDetail }) {
  return (
    <>
      <header className="panel-header">
        <h1 className="mono message-id">{message.message_id}</h1>
        <StatusLabel status={message.status} superseded={message.superseded} />
      </header>
      <dl className="properties">
        <Property name={heading(terms.entity)}>{message.entity}</Property>
        <Property name={heading(terms.received)}>{timestamp(message.received_at)}</Property>
        <Property name={heading(terms.processed)}>{timestamp(message.processed_at)}</Property>
        <Property name={heading(terms.latency)}>{duration(message.seconds)}</Property>
        <Property name={heading(terms.failedAttempts)}>{message.attempts}</Property>
        <Property name={heading(terms.replays)}>{message.replays}</Property>
      </dl>
      {message.notes.map((note) => (
        <p key={note} className="banner banner-unavailable">
          {note}
        </p>
      ))}
      <h2>Timeline</h2>
      <ol className="timeline">
        {message.timeline.map((event, at) => (
          <li key={at} className={`event-${event.event}`}>
            <span className="event-icon" aria-hidden="true">
              {EVENT_ICONS[event.event]}
            </span>
            <div>
              <b>{EVENT_LABELS[event.event]}</b> <time dateTime={event.at}>{timestamp(event.at)}</time>
              <p>{event.detail}</p>
            </div>
          </li>
        ))}
        {(message.status === "accepted" || message.status === "processing") && (
          <li className="event-pending">
            <span className="event-icon" aria-hidden="true">
              {statuses.processing.sign}
            </span>
            <div>
              <b>{message.status === "accepted" ? "Waiting for a worker" : "Being processed"}</b>
              <p>This page updates automatically.</p>
            </div>
          </li>
        )}
      </ol>
      {message.dead_letter !== null && (
        <p>
          <Link href={`/dead-letters/${message.dead_letter}`} className="button">
            Open dead letter {message.dead_letter}
          </Link>
        </p>
      )}
      {message.rows.map((written) => (
        <div key={written.entity}>
          <h2>
            Rows in {written.table} <small className="muted">{written.complete ? "" : "(first 50)"}</small>
          </h2>
          {written.rows.map((row, at) => (
            <dl key={at} className="record">
              {Object.entries(row.values).map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value === null ? <i className="muted">null</i> : String(value)}</dd>
                </div>
              ))}
            </dl>
          ))}
        </div>
      ))}
      {message.payload !== null && (
        <>
          <h2>Payload</h2>
          <pre className="payload">{message.payload}</pre>
        </>
      )}
    </>
  );
}

function Property({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children ?? none}</dd>
    </div>
  );
}
