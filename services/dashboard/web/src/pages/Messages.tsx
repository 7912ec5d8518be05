import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { type SyntheticEvent, useState } from "react";
import { useLocation } from "wouter";
import { body, client } from "../api/client";
import { moment } from "../format";
import { MessageTable } from "../parts/MessageTable";
import { Pager } from "../parts/Pager";
import { Empty, Failure, Loading } from "../parts/states";
import { useAddress } from "../parts/useAddress";

const STATUSES = ["completed", "failed", "dlq", "processing"] as const;
type Listed = (typeof STATUSES)[number];
const LABELS: Record<Listed, string> = {
  completed: "completed",
  failed: "failed",
  dlq: "dead",
  processing: "processing",
};
const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
const PREFIX = /^[0-9a-f]{8}[0-9a-f-]{0,28}$/i;

/** The message finder: by id, or by status, entity, error and time. */
export function Messages() {
  const [address, change] = useAddress();
  const [, go] = useLocation();
  const [text, setText] = useState(address.get("q") ?? "");
  const status = STATUSES.find((each) => each === address.get("status"));
  const entity = address.get("entity") ?? undefined;
  const words = address.get("q") ?? "";
  const prefix = PREFIX.test(words) ? words : undefined;
  const error = words !== "" && prefix === undefined ? words : undefined;
  const entities = useQuery({ queryKey: ["entities"], queryFn: () => body(client.GET("/api/entities")) });
  const query = useInfiniteQuery({
    queryKey: ["messages", status, entity, words],
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
    if (UUID.test(wanted)) go(`/messages/${wanted.toLowerCase()}`);
    else change({ q: wanted });
  };
  return (
    <section className="panel">
      <header className="panel-head">
        <h1>Messages</h1>
      </header>
      <form className="filters" onSubmit={submit} role="search">
        <input
          data-search
          type="search"
          aria-label="Message id, or text in its error"
          placeholder="Message id, its first 8 characters, or text in its error"
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            if (event.target.value === "") change({ q: null });
          }}
        />
        <button type="submit" className="button">
          Find
        </button>
        <div className="choices" role="group" aria-label="Status">
          <button type="button" aria-pressed={status === undefined} onClick={() => change({ status: null })}>
            all
          </button>
          {STATUSES.map((each) => (
            <button key={each} type="button" aria-pressed={each === status} onClick={() => change({ status: each })}>
              {LABELS[each]}
            </button>
          ))}
        </div>
        <select
          aria-label="Entity"
          value={entity ?? ""}
          onChange={(event) => change({ entity: event.target.value || null })}
        >
          <option value="">every entity</option>
          {entities.data?.entities.map((each) => (
            <option key={each.name} value={each.name}>
              {each.title}
            </option>
          ))}
        </select>
      </form>
      {query.isPending ? (
        <Loading rows={10} />
      ) : query.isError && messages.length === 0 ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : messages.length === 0 ? (
        <Empty title={words !== "" || status || entity ? "No message matches" : "No message yet"}>
          {query.hasNextPage && searchedTo != null
            ? `Searched back to ${moment(searchedTo)}.`
            : words !== "" || status || entity
              ? "Take a filter away, or look for a whole message id: one that still waits in the stream is found by it."
              : "The first message that a worker has answered shows here."}
        </Empty>
      ) : (
        <MessageTable messages={messages} caption="Messages, the newest first" />
      )}
      <Pager
        query={query}
        label={searchedTo != null && messages.length < 50 ? `Search further back than ${moment(searchedTo)}` : "Show older"}
      />
    </section>
  );
}
