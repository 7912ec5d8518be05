import type { InfiniteData, UseInfiniteQueryResult } from "@tanstack/react-query";

/** The way to further rows of a list that is read page by page. */
export function Pager<T>({ query, label }: { query: UseInfiniteQueryResult<InfiniteData<T>>; label: string }) {
  if (!query.hasNextPage) return null;
  return (
    <div className="pager">
      <button type="button" className="button" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
        {query.isFetchingNextPage ? "Reading …" : label}
      </button>
    </div>
  );
}
