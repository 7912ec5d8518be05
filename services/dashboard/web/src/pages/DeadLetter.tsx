import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { body, client } from "../api/client";
import { bytes, number, timestamp } from "../format";
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
              {REASONS[query.data.letter.reason]?.title ?? query.data.letter.reason}{" "}
              <span className="entity-label">{query.data.letter.entity}</span>
            </h1>
          </header>
          <p className="error-message">{query.data.letter.error}</p>
          <dl className="properties">
            <div>
              <dt>Message</dt>
              <dd className="mono">
                {query.data.letter.message_id === null ? (
                  "none"
                ) : (
                  <Link href={`/messages/${query.data.letter.message_id}`}>{query.data.letter.message_id}</Link>
                )}
              </dd>
            </div>
            <div>
              <dt>Received</dt>
              <dd>{timestamp(query.data.letter.received_at)}</dd>
            </div>
            <div>
              <dt>Failed</dt>
              <dd>{timestamp(query.data.letter.failed_at)}</dd>
            </div>
            <div>
              <dt>Attempts</dt>
              <dd>{number(query.data.letter.attempts)}</dd>
            </div>
            <div>
              <dt>Size</dt>
              <dd>{bytes(query.data.letter.size)}</dd>
            </div>
          </dl>
          <h2>Payload</h2>
          <Payload text={query.data.payload} problems={query.data.problems} />
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

interface PayloadProblem {
  line: number;
  position: number | null;
  expected: string;
}

/** The payload, with invalid fields highlighted. */
export function Payload({ text, problems }: { text: string; problems: readonly PayloadProblem[] }) {
  return (
    <pre className="payload">
      {text.split("\n").map((line, at) => {
        const ofLine = problems.filter((problem) => problem.line === at + 1);
        return (
          <span key={at} className="payload-line">
            {fields(line).map((field, position) => {
              const problem = ofLine.find((each) => each.position === position);
              return (
                <span key={position}>
                  {position > 0 && <span className="separator">|</span>}
                  {problem === undefined ? (
                    field
                  ) : (
                    <mark title={`expected ${problem.expected}`}>{field === "" ? "∅" : field}</mark>
                  )}
                </span>
              );
            })}
          </span>
        );
      })}
    </pre>
  );
}

/** The fields of a line, split at each separator that is not escaped by a backslash. */
export function fields(line: string): string[] {
  const found: string[] = [];
  for (const [, field = "", separator] of line.matchAll(/((?:\\.|[^|\\])*)(\||$)/g)) {
    found.push(field);
    if (separator === "") break;
  }
  return found;
}
