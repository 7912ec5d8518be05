import { Link } from "wouter";
import type { MessageSummary } from "../api/client";
import { duration, heading, timestamp } from "../format";
import { terms } from "../generated/words";
import { StatusLabel } from "./StatusLabel";

/** A table of messages that link to their own pages; on narrow screens, rows become cards. */
export function MessageTable({ messages, caption }: { messages: readonly MessageSummary[]; caption: string }) {
  return (
    <div className="table-wrap">
      <table className="table table-cards">
        <caption className="visually-hidden">{caption}</caption>
        <thead>
          <tr>
            <th scope="col">{heading(terms.status)}</th>
            <th scope="col">{heading(terms.message)}</th>
            <th scope="col">{heading(terms.entity)}</th>
            <th scope="col">{heading(terms.received)}</th>
            <th scope="col" className="numeric">
              {heading(terms.latency)}
            </th>
            <th scope="col">Note</th>
          </tr>
        </thead>
        <tbody>
          {messages.map((message) => (
            <tr key={message.message_id}>
              <td>
                <StatusLabel status={message.status} superseded={message.superseded} />
              </td>
              <td className="mono">
                <Link href={`/messages/${message.message_id}`} className="row-link" title={message.message_id}>
                  {message.message_id.slice(0, 8)}…{message.message_id.slice(-6)}
                </Link>
              </td>
              <td>{message.entity}</td>
              <td>
                <time dateTime={message.received_at}>{timestamp(message.received_at)}</time>
              </td>
              <td className="numeric">{duration(message.seconds)}</td>
              <td className="note" title={message.error ?? undefined}>
                {message.error ?? (message.replays > 0 ? `replay ${message.replays}` : "")}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
