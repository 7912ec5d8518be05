import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { type SyntheticEvent, useState } from "react";
import { Link } from "wouter";
import { body, client, type DeadLetter, type DeadLetterGroup } from "../api/client";
import { useLive } from "../api/live";
import { ago, moment, number } from "../format";
import { Pager } from "../parts/Pager";
import { Empty, Failure, Loading } from "../parts/states";
import { useAddress } from "../parts/useAddress";

export const REASONS: Record<string, { title: string; about: string }> = {
  record: { title: "Not a record", about: "It does not follow the schema." },
  data: { title: "Refused by PostgreSQL", about: "Its values cannot be stored." },
  unanswered: { title: "Never answered", about: "It seems to end the workers that take it." },
  envelope: { title: "Not nomnom's", about: "Its subject or headers cannot be read." },
};

/** Dead letters by reason, and each of them. */
export function DeadLetters() {
  const [address, change] = useAddress();
  const [words, setWords] = useState(address.get("q") ?? "");
  const reason = address.get("reason") ?? undefined;
  const entity = address.get("entity") ?? undefined;
  const text = address.get("q") ?? undefined;
  // A new letter, or one that went, is asked for when the stream says so.
  const depth = useLive((now) => now.snapshot?.dead_letters ?? null);
  const query = useInfiniteQuery({
    queryKey: ["dead letters", reason, entity, text, depth],
    queryFn: ({ pageParam }) =>
      body(client.GET("/api/dlq", { params: { query: { limit: 50, reason, entity, text, cursor: pageParam } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    placeholderData: keepPreviousData,
    refetchInterval: (state) => ((state.state.data?.pages.length ?? 0) > 1 ? false : 5_000),
  });
  const first = query.data?.pages[0];
  const letters = query.data?.pages.flatMap((page) => page.dead_letters) ?? [];
  const filtered = Boolean(reason ?? entity ?? text);
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    change({ q: words.trim() });
  };
  if (query.isPending) return <Loading rows={8} />;
  if (query.isError && letters.length === 0) return <Failure error={query.error} retry={() => void query.refetch()} />;
  return (
    <section className="panel">
      <header className="panel-head">
        <h1>Dead letters</h1>
        <span className="quiet">
          {number(first?.total)} in the stream{filtered ? `, ${number(first?.matching)} match` : ""}
        </span>
      </header>
      {first?.total === 0 ? (
        <Empty title="No dead letters">Every message was taken, or is still being tried.</Empty>
      ) : (
        <>
          <ul className="groups">
            {first?.groups.map((group) => (
              <Group
                key={`${group.reason} ${group.entity}`}
                group={group}
                chosen={reason === group.reason && entity === group.entity}
                choose={(on) => change({ reason: on ? group.reason : null, entity: on ? group.entity : null })}
              />
            ))}
          </ul>
          <form className="filters" onSubmit={submit} role="search">
            <input
              data-search
              type="search"
              aria-label="Text in the error or the message id"
              placeholder="Text in the error, or part of a message id"
              value={words}
              onChange={(event) => {
                setWords(event.target.value);
                if (event.target.value === "") change({ q: null });
              }}
            />
            <button type="submit" className="button">
              Find
            </button>
            {filtered && (
              <button
                type="button"
                className="button"
                onClick={() => {
                  setWords("");
                  change({ reason: null, entity: null, q: null });
                }}
              >
                Show all
              </button>
            )}
          </form>
          {letters.length === 0 ? <Empty title="No letter matches" /> : <Letters letters={letters} />}
          <Pager query={query} label="Show older" />
          {first !== undefined && first.older > 0 && (
            <p className="quiet">{number(first.older)} older letters are not listed: there are too many.</p>
          )}
          <p className="quiet">
            Letters are edited, replayed and deleted with <code>nomnom dlq</code>, or in the terminal app.
          </p>
        </>
      )}
    </section>
  );
}

interface GroupProps {
  group: DeadLetterGroup;
  chosen: boolean;
  choose: (on: boolean) => void;
}

function Group({ group, chosen, choose }: GroupProps) {
  const reason = REASONS[group.reason];
  return (
    <li>
      <button type="button" className="group" aria-pressed={chosen} onClick={() => choose(!chosen)}>
        <span className="group-count">{number(group.dead_letters)}</span>
        <span className="group-about">
          <b>
            {reason?.title ?? group.reason} <span className="entity-pill">{group.entity}</span>
          </b>
          <small title={group.newest_error}>{group.newest_error || reason?.about}</small>
        </span>
        <time className="quiet" dateTime={group.newest_at}>
          {ago(group.newest_at)}
        </time>
      </button>
    </li>
  );
}

function Letters({ letters }: { letters: readonly DeadLetter[] }) {
  return (
    <div className="table-wrap">
      <table className="table table-cards">
        <caption className="hidden">Dead letters, the newest first</caption>
        <thead>
          <tr>
            <th scope="col" className="numeric">
              Letter
            </th>
            <th scope="col">Reason</th>
            <th scope="col">Entity</th>
            <th scope="col">Failed</th>
            <th scope="col" className="numeric">
              Attempts
            </th>
            <th scope="col">Error</th>
          </tr>
        </thead>
        <tbody>
          {letters.map((letter) => (
            <tr key={letter.sequence}>
              <td className="numeric">
                <Link href={`/dead-letters/${letter.sequence}`} className="row-link">
                  {letter.sequence}
                </Link>
              </td>
              <td>{REASONS[letter.reason]?.title ?? letter.reason}</td>
              <td>{letter.entity}</td>
              <td>{moment(letter.failed_at ?? letter.stored_at)}</td>
              <td className="numeric" data-label={letter.attempts === 1 ? "attempt" : "attempts"}>
                {number(letter.attempts)}
              </td>
              <td className="note" title={letter.error}>
                {letter.error}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
