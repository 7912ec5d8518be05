import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { body, client } from "../api/client";
import { bytes, moment, number } from "../format";
import { Failure, Loading } from "../parts/states";
import { REASONS } from "./DeadLetters";

/** One dead letter: what it holds, and which fields are wrong. */
export function Letter({ sequence }: { sequence: string }) {
  const query = useQuery({
    queryKey: ["dead letter", sequence],
    queryFn: () => body(client.GET("/api/dlq/{sequence}", { params: { path: { sequence: Number(sequence) } } })),
  });
  return (
    <section className="panel">
      <p className="crumbs">
        <Link href="/dead-letters">Dead letters</Link> <span aria-hidden="true">/</span> {sequence}
      </p>
      {query.isPending ? (
        <Loading />
      ) : query.isError ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : (
        <>
          <header className="panel-head">
            <h1>
              {REASONS[query.data.dead_letter.reason]?.title ?? query.data.dead_letter.reason}{" "}
              <span className="entity-pill">{query.data.dead_letter.entity}</span>
            </h1>
          </header>
          <p className="error-text">{query.data.dead_letter.error}</p>
          <dl className="facts">
            <div>
              <dt>Message</dt>
              <dd className="mono">
                {query.data.dead_letter.message_id === null ? (
                  "none"
                ) : (
                  <Link href={`/messages/${query.data.dead_letter.message_id}`}>{query.data.dead_letter.message_id}</Link>
                )}
              </dd>
            </div>
            <div>
              <dt>Received</dt>
              <dd>{moment(query.data.dead_letter.received_at)}</dd>
            </div>
            <div>
              <dt>Failed</dt>
              <dd>{moment(query.data.dead_letter.failed_at)}</dd>
            </div>
            <div>
              <dt>Attempts</dt>
              <dd>{number(query.data.dead_letter.attempts)}</dd>
            </div>
            <div>
              <dt>Size</dt>
              <dd>{bytes(query.data.dead_letter.size)}</dd>
            </div>
          </dl>
          <h2>Payload</h2>
          <Payload text={query.data.payload} problems={query.data.problems} />
          {query.data.problems.length > 0 && (
            <>
              <h2>What is wrong</h2>
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

interface Wrong {
  line: number;
  position: number | null;
  expected: string;
}

/** The payload, with the fields that are wrong marked. */
export function Payload({ text, problems }: { text: string; problems: readonly Wrong[] }) {
  return (
    <pre className="payload">
      {text.split("\n").map((line, at) => {
        const wrong = problems.filter((problem) => problem.line === at + 1);
        return (
          <span key={at} className="payload-line">
            {fields(line).map((field, position) => {
              const problem = wrong.find((each) => each.position === position);
              return (
                <span key={position}>
                  {position > 0 && <span className="bar-sign">|</span>}
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

/** A line's fields: split at each bar that no backslash escapes. */
export function fields(line: string): string[] {
  const found: string[] = [];
  for (const [, field = "", bar] of line.matchAll(/((?:\\.|[^|\\])*)(\||$)/g)) {
    found.push(field);
    if (bar === "") break;
  }
  return found;
}
