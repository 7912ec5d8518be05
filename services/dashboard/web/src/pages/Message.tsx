import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { body, client, type MessageDetail } from "../api/client";
import { duration, moment, none } from "../format";
import { Failure, Loading } from "../parts/states";
import { StatusMark } from "../parts/StatusMark";

const SIGNS: Record<MessageDetail["timeline"][number]["event"], string> = {
  accepted: "○",
  attempt_failed: "↻",
  completed: "●",
  superseded: "◌",
  dead_letter: "✕",
  operator: "✎",
};
const NAMES: Record<MessageDetail["timeline"][number]["event"], string> = {
  accepted: "Accepted",
  attempt_failed: "Attempt failed",
  completed: "Completed",
  superseded: "Superseded",
  dead_letter: "Became a dead letter",
  operator: "Operator",
};

/** One message: where it is, how it came there, and what it wrote. It is followed until it comes to rest. */
export function Message({ id }: { id: string }) {
  const query = useQuery({
    queryKey: ["message", id],
    queryFn: () => body(client.GET("/api/messages/{id}", { params: { path: { id } } })),
    refetchInterval: (state) => (state.state.data?.status === "completed" ? false : 1_000),
  });
  return (
    <section className="panel">
      <p className="crumbs">
        <Link href="/messages">Messages</Link> <span aria-hidden="true">/</span> <span className="mono">{id.slice(0, 8)}…</span>
      </p>
      {query.isPending ? (
        <Loading rows={6} />
      ) : query.isError ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : (
        <Detail message={query.data} />
      )}
    </section>
  );
}

function Detail({ message }: { message: MessageDetail }) {
  return (
    <>
      <header className="panel-head">
        <h1 className="mono message-id">{message.message_id}</h1>
        <StatusMark status={message.status} superseded={message.superseded} />
      </header>
      <dl className="facts">
        <Fact name="Entity">{message.entity}</Fact>
        <Fact name="Received">{moment(message.received_at)}</Fact>
        <Fact name="Processed">{moment(message.processed_at)}</Fact>
        <Fact name="Took">{duration(message.seconds)}</Fact>
        <Fact name="Failed attempts">{message.attempts}</Fact>
        <Fact name="Replays">{message.replays}</Fact>
      </dl>
      {message.notes.map((note) => (
        <p key={note} className="banner banner-away">
          {note}
        </p>
      ))}
      <h2>Timeline</h2>
      <ol className="timeline">
        {message.timeline.map((event, at) => (
          <li key={at} className={`event-${event.event}`}>
            <span className="event-sign" aria-hidden="true">
              {SIGNS[event.event]}
            </span>
            <div>
              <b>{NAMES[event.event]}</b> <time dateTime={event.at}>{moment(event.at)}</time>
              <p>{event.detail}</p>
            </div>
          </li>
        ))}
        {(message.status === "accepted" || message.status === "processing") && (
          <li className="event-pending">
            <span className="event-sign" aria-hidden="true">
              ◐
            </span>
            <div>
              <b>{message.status === "accepted" ? "Waiting for a worker" : "With a worker"}</b>
              <p>This page follows it.</p>
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
            Wrote to {written.table} <small className="quiet">{written.complete ? "" : "the first 50 rows"}</small>
          </h2>
          {written.rows.map((row, at) => (
            <dl key={at} className="record">
              {Object.entries(row.values).map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value === null ? <i className="quiet">null</i> : String(value)}</dd>
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

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children ?? none}</dd>
    </div>
  );
}
