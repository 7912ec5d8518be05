import type { InfiniteData, UseInfiniteQueryResult } from "@tanstack/react-query";

/** Loads the next page of a paginated list. */
export function Pager<T>({ query, label }: { query: UseInfiniteQueryResult<InfiniteData<T>>; label: string }) {
  if (!query.hasNextPage) return null;
  return (
    <div className="pager">
      <button type="button" className="button" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
        {query.isFetchingNextPage ? "Loading …" : label}
      </button>
    </div>
  );
}
