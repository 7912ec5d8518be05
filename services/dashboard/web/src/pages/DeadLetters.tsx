import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { type SyntheticEvent, useState } from "react";
import { Link } from "wouter";
import { body, client, type DeadLetter, type DeadLetterGroup } from "../api/client";
import { useLive } from "../api/live";
import { ago, heading, number, timestamp } from "../format";
import { causes, terms } from "../generated/words";
import { Pager } from "../components/Pager";
import { EmptyState, ErrorState, LoadingState } from "../components/states";
import { useQueryParameters } from "../components/useQueryParameters";

/** How the reason of a dead letter is explained; nothing is known of a reason that a later version added. */
export const REASONS: Partial<Record<string, { title: string; description: string }>> = causes;

/** Dead letters, grouped by reason and listed. */
export function DeadLetters() {
  const [parameters, change] = useQueryParameters();
  const [input, setInput] = useState(parameters.get("q") ?? "");
  const reason = parameters.get("reason") ?? undefined;
  const entity = parameters.get("entity") ?? undefined;
  const text = parameters.get("q") ?? undefined;
  // Part of the query key: the list is fetched again when the number of dead letters changes.
  const total = useLive((now) => now.snapshot?.dead_letters ?? null);
  const query = useInfiniteQuery({
    queryKey: ["dead letters", reason, entity, text, total],
    queryFn: ({ pageParam }) =>
      body(client.GET("/api/dlq", { params: { query: { limit: 50, reason, entity, text, cursor: pageParam } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    placeholderData: keepPreviousData,
    refetchInterval: (state) => ((state.state.data?.pages.length ?? 0) > 1 ? false : 5_000),
  });
  const first = query.data?.pages[0];
  const deadLetters = query.data?.pages.flatMap((page) => page.dead_letters) ?? [];
  const filtered = Boolean(reason ?? entity ?? text);
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    change({ q: input.trim() });
  };
  if (query.isPending) return <LoadingState rows={8} />;
  if (query.isError && deadLetters.length === 0) return <ErrorState error={query.error} retry={() => void query.refetch()} />;
  return (
    <section className="panel">
      <header className="panel-header">
        <h1>Dead letters</h1>
        <span className="muted">
          {number(first?.total)} in the stream{filtered ? `, ${number(first?.matching)} match` : ""}
        </span>
      </header>
      {first?.total === 0 ? (
        <EmptyState title="No dead letters">All messages were processed or are still being retried.</EmptyState>
      ) : (
        <>
          <ul className="groups">
            {first?.groups.map((group) => (
              <Group
                key={`${group.reason} ${group.entity}`}
                group={group}
                selected={reason === group.reason && entity === group.entity}
                select={(on) => change({ reason: on ? group.reason : null, entity: on ? group.entity : null })}
              />
            ))}
          </ul>
          <form className="filters" onSubmit={submit} role="search">
            <input
              data-search
              type="search"
              aria-label="Error text or message ID"
              placeholder="Error text, or part of a message ID"
              value={input}
              onChange={(event) => {
                setInput(event.target.value);
                if (event.target.value === "") change({ q: null });
              }}
            />
            <button type="submit" className="button">
              Search
            </button>
            {filtered && (
              <button
                type="button"
                className="button"
                onClick={() => {
                  setInput("");
                  change({ reason: null, entity: null, q: null });
                }}
              >
                Clear filters
              </button>
            )}
          </form>
          {deadLetters.length === 0 ? <EmptyState title="No matching dead letters" /> : <DeadLetterTable deadLetters={deadLetters} />}
          <Pager query={query} label="Show older" />
          {first !== undefined && first.older > 0 && (
            <p className="muted">{number(first.older)} older dead letters are not listed; filters and groups cover the newest only.</p>
          )}
          <p className="muted">
            Use <code>nomnom dlq</code> or the terminal app to fix, replay or delete dead letters.
          </p>
        </>
      )}
    </section>
  );
}

interface GroupProps {
  group: DeadLetterGroup;
  selected: boolean;
  select: (on: boolean) => void;
}

function Group({ group, selected, select }: GroupProps) {
  const reason = REASONS[group.reason];
  return (
    <li>
      <button type="button" className="group" aria-pressed={selected} onClick={() => select(!selected)}>
        <span className="group-count">{number(group.dead_letters)}</span>
        <span className="group-description">
          <b>
            {reason?.title ?? group.reason} <span className="entity-label">{group.entity}</span>
          </b>
          <small title={group.newest_error}>{group.newest_error || reason?.description}</small>
        </span>
        <time className="muted" dateTime={group.newest_at}>
          {ago(group.newest_at)}
        </time>
      </button>
    </li>
  );
}

function DeadLetterTable({ deadLetters }: { deadLetters: readonly DeadLetter[] }) {
  return (
    <div className="table-wrap">
      <table className="table table-cards">
        <caption className="visually-hidden">Dead letters, newest first</caption>
        <thead>
          <tr>
            <th scope="col" className="numeric">
              Sequence
            </th>
            <th scope="col">{heading(terms.reason)}</th>
            <th scope="col">{heading(terms.entity)}</th>
            <th scope="col">{heading(terms.failed)}</th>
            <th scope="col" className="numeric">
              {heading(terms.attempts)}
            </th>
            <th scope="col">{heading(terms.error)}</th>
          </tr>
        </thead>
        <tbody>
          {deadLetters.map((deadLetter) => (
            <tr key={deadLetter.sequence}>
              <td className="numeric">
                <Link href={`/dead-letters/${deadLetter.sequence}`} className="row-link">
                  {deadLetter.sequence}
                </Link>
              </td>
              <td>{REASONS[deadLetter.reason]?.title ?? deadLetter.reason}</td>
              <td>{deadLetter.entity}</td>
              <td>{timestamp(deadLetter.failed_at ?? deadLetter.stored_at)}</td>
              <td className="numeric" data-label={deadLetter.attempts === 1 ? "attempt" : "attempts"}>
                {number(deadLetter.attempts)}
              </td>
              <td className="note" title={deadLetter.error}>
                {deadLetter.error}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
