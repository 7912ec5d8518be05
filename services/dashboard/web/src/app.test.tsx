import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render } from "@testing-library/react";
import { expect, test, vi } from "vitest";
import { App } from "./app";

test.each([
  ["/records", "/entities"],
  ["/records/orders?sort=-o_orderkey", "/entities/orders?sort=-o_orderkey"],
])("a bookmark of %s leads to %s", (old, now) => {
  vi.stubGlobal("fetch", () => new Promise(() => undefined));
  history.replaceState(null, "", old);
  render(
    <QueryClientProvider client={new QueryClient()}>
      <App />
    </QueryClientProvider>,
  );
  expect(location.pathname + location.search).toBe(now);
});
