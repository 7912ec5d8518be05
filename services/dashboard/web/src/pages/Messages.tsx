import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { type SyntheticEvent, useState } from "react";
import { useLocation } from "wouter";
import { body, client } from "../api/client";
import { timestamp } from "../format";
import { statuses } from "../generated/words";
import { MessageTable } from "../components/MessageTable";
import { Pager } from "../components/Pager";
import { EmptyState, ErrorState, LoadingState } from "../components/states";
import { useQueryParameters } from "../components/useQueryParameters";

const STATUSES = ["completed", "failed", "dlq", "processing", "deleted", "purged", "expired"] as const;
const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
const PREFIX = /^[0-9a-f]{8}(-?[0-9a-f]){0,24}-?$/i;

/** Messages, filtered by ID, status, entity or error. */
export function Messages() {
  const [parameters, change] = useQueryParameters();
  const [, navigate] = useLocation();
  const [text, setText] = useState(parameters.get("q") ?? "");
  const status = STATUSES.find((each) => each === parameters.get("status"));
  const entity = parameters.get("entity") ?? undefined;
  const search = parameters.get("q") ?? "";
  const prefix = PREFIX.test(search) ? search : undefined;
  const error = search !== "" && prefix === undefined ? search : undefined;
  const entities = useQuery({ queryKey: ["entities"], queryFn: () => body(client.GET("/api/entities")) });
  const query = useInfiniteQuery({
    queryKey: ["messages", status, entity, search],
    queryFn: ({ pageParam }) =>
      body(
        client.GET("/api/messages", {
          params: { query: { limit: 50, status, entity, error, id: prefix, cursor: pageParam } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    refetchInterval: (state) => ((state.state.data?.pages.length ?? 0) > 1 ? false : 5_000),
  });
  const messages = query.data?.pages.flatMap((page) => page.messages) ?? [];
  const searchedTo = query.data?.pages.at(-1)?.searched_to;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const wanted = text.trim();
    if (UUID.test(wanted)) navigate(`/messages/${wanted.toLowerCase()}`);
    else change({ q: wanted });
  };
  return (
    <section className="panel">
      <header className="panel-header">
        <h1>Messages</h1>
      </header>
      <form className="filters" onSubmit={submit} role="search">
        <input
          data-search
          type="search"
          aria-label="Message ID or error text"
          placeholder="Message ID (at least 8 characters), or error text"
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            if (event.target.value === "") change({ q: null });
          }}
        />
        <button type="submit" className="button">
          Search
        </button>
        <div className="button-group" role="group" aria-label="Status">
          <button type="button" aria-pressed={status === undefined} onClick={() => change({ status: null })}>
            all
          </button>
          {STATUSES.map((each) => (
            <button key={each} type="button" aria-pressed={each === status} onClick={() => change({ status: each })}>
              {statuses[each].label}
            </button>
          ))}
        </div>
        <select
          aria-label="Entity"
          value={entity ?? ""}
          onChange={(event) => change({ entity: event.target.value || null })}
        >
          <option value="">all entities</option>
          {entities.data?.entities.map((each) => (
            <option key={each.name} value={each.name}>
              {each.title}
            </option>
          ))}
        </select>
      </form>
      {query.isPending ? (
        <LoadingState rows={10} />
      ) : query.isError && messages.length === 0 ? (
        <ErrorState error={query.error} retry={() => void query.refetch()} />
      ) : messages.length === 0 ? (
        <EmptyState title={search !== "" || status || entity ? "No matching messages" : "No messages yet"}>
          {query.hasNextPage && searchedTo != null
            ? `Searched back to ${timestamp(searchedTo)}.`
            : search !== "" || status || entity
              ? "Remove a filter, or search for a complete message ID: that also finds messages still pending in the stream."
              : "Messages are listed here once a worker has processed them."}
        </EmptyState>
      ) : (
        <MessageTable messages={messages} caption="Messages, newest first" />
      )}
      <Pager
        query={query}
        label={searchedTo != null && messages.length < 50 ? `Search before ${timestamp(searchedTo)}` : "Show older"}
      />
    </section>
  );
}
