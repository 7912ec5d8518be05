import { useCallback, useMemo } from "react";
import { useLocation, useSearch } from "wouter";

/** Filters kept in the address, so that a list can be bookmarked, shared and gone back to. */
export function useAddress(): [URLSearchParams, (changes: Record<string, string | null>) => void] {
  const search = useSearch();
  const [path, go] = useLocation();
  const parameters = useMemo(() => new URLSearchParams(search), [search]);
  const change = useCallback(
    (changes: Record<string, string | null>) => {
      const next = new URLSearchParams(search);
      for (const [name, value] of Object.entries(changes)) {
        if (value === null || value === "") next.delete(name);
        else next.set(name, value);
      }
      const text = next.toString();
      go(text === "" ? path : `${path}?${text}`, { replace: true });
    },
    [search, path, go],
  );
  return [parameters, change];
}
