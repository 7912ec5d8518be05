import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { body, client, type DeadLetterDetail } from "../api/client";
import { bytes, heading, number, timestamp } from "../format";
import { terms } from "../generated/words";
import { ErrorState, LoadingState } from "../components/states";
import { REASONS } from "./DeadLetters";

/** One dead letter: its payload, with invalid fields highlighted. */
export function DeadLetter({ sequence }: { sequence: string }) {
  const query = useQuery({
    queryKey: ["dead letter", sequence],
    queryFn: () => body(client.GET("/api/dlq/{sequence}", { params: { path: { sequence: Number(sequence) } } })),
  });
  return (
    <section className="panel">
      <p className="breadcrumbs">
        <Link href="/dead-letters">Dead letters</Link> <span aria-hidden="true">/</span> {sequence}
      </p>
      {query.isPending ? (
        <LoadingState />
      ) : query.isError ? (
        <ErrorState error={query.error} retry={() => void query.refetch()} />
      ) : (
        <>
          <header className="panel-header">
            <h1>
              {REASONS[query.data.dead_letter.reason]?.title ?? query.data.dead_letter.reason}{" "}
              <span className="entity-label">{query.data.dead_letter.entity}</span>
            </h1>
          </header>
          <p className="error-message">{query.data.dead_letter.error}</p>
          <dl className="properties">
            <div>
              <dt>{heading(terms.message)}</dt>
              <dd className="mono">
                {query.data.dead_letter.message_id === null ? (
                  "none"
                ) : (
                  <Link href={`/messages/${query.data.dead_letter.message_id}`}>{query.data.dead_letter.message_id}</Link>
                )}
              </dd>
            </div>
            <div>
              <dt>{heading(terms.received)}</dt>
              <dd>{timestamp(query.data.dead_letter.received_at)}</dd>
            </div>
            <div>
              <dt>{heading(terms.failed)}</dt>
              <dd>{timestamp(query.data.dead_letter.failed_at)}</dd>
            </div>
            <div>
              <dt>{heading(terms.attempts)}</dt>
              <dd>{number(query.data.dead_letter.attempts)}</dd>
            </div>
            <div>
              <dt>{heading(terms.size)}</dt>
              <dd>{bytes(query.data.dead_letter.size)}</dd>
            </div>
          </dl>
          <h2>Payload</h2>
          <Payload lines={query.data.lines} />
          {query.data.problems.length > 0 && (
            <>
              <h2>Problems</h2>
              <ul className="problems">
                {query.data.problems.map((problem, at) => (
                  <li key={at}>
                    <b>
                      Line {problem.line}
                      {problem.field === null ? "" : `, ${problem.field}`}
                    </b>
                    <span>
                      expected {problem.expected}, found {problem.found}
                    </span>
                  </li>
                ))}
              </ul>
            </>
          )}
        </>
      )}
    </section>
  );
}

/** The payload, with invalid fields highlighted. */
export function Payload({ lines }: { lines: DeadLetterDetail["lines"] }) {
  return (
    <pre className="payload">
      {lines.map((line) => (
        <span key={line.number} className="payload-line">
          {line.fields.map((field, position) => (
            <span key={position} title={field.name ?? undefined}>
              {position > 0 && <span className="separator">|</span>}
              {field.expected === null ? (
                field.text
              ) : (
                <mark title={`expected ${field.expected}`}>{field.text === "" ? "∅" : field.text}</mark>
              )}
            </span>
          ))}
        </span>
      ))}
    </pre>
  );
}
