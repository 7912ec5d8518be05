import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, it, vi } from "vitest";
import { ApiError, type Snapshot } from "../api/client";
import { Pipeline } from "./Pipeline";
import { ErrorState } from "./states";
import { StatusLabel } from "./StatusLabel";

const snapshot: Snapshot = {
  sequence: 1,
  at: "2024-01-01T00:00:00Z",
  schema: "tpch",
  database: { ok: true, detail: "" },
  nats: { ok: true, detail: "" },
  counts: null,
  rates: { accepted: 12, completed: 11, dead: 0 },
  lag: {
    waiting: 1200,
    processing: 30,
    total: 1230,
    redelivered: 0,
    oldest_seconds: 95,
    bytes: 900,
    max_bytes: 1000,
    paused: false,
  },
  workers: { connected: 0, pulls: 0 },
  latency: null,
  account: { unexplained: 0, since: null, verified_at: "2024-01-01T00:00:00Z" },
  expiring: null,
  dead_letters: 3,
  point: { at: 0, accepted: 1, completed: 1, dead: 0, lag: 0, p50: null, p95: null, p99: null },
  newest: [],
};

it("warns about pending messages without workers", () => {
  render(<Pipeline snapshot={snapshot} />);
  expect(screen.getByText("1,200").closest(".stage")?.textContent).toContain("oldest 1m 35s");
  expect(screen.getByText("no workers for pending messages").closest(".stage-warning")).not.toBeNull();
  expect(screen.getByRole("link").textContent).toContain("3 messages");
});

it("shows that the consumer is paused even if the stream is nearly full", () => {
  const lag = { ...snapshot.lag, paused: true } as Snapshot["lag"];
  render(<Pipeline snapshot={{ ...snapshot, lag }} />);
  expect(screen.getByText("consumer paused")).toBeDefined();
});

it("shows dashes instead of zeros while values are unknown", () => {
  render(<Pipeline snapshot={null} />);
  expect(screen.queryByText("0")).toBeNull();
  expect(screen.getAllByText("–", { exact: false }).length).toBeGreaterThan(3);
});

it("shows a status as text", () => {
  render(<StatusLabel status="completed" superseded />);
  expect(screen.getByText("superseded")).toBeDefined();
});

it("offers to retry only if that can succeed", async () => {
  const retry = vi.fn();
  const { rerender } = render(<ErrorState error={new ApiError(503, "PostgreSQL: unavailable")} retry={retry} />);
  expect(screen.getByRole("alert").textContent).toContain("PostgreSQL: unavailable");
  await userEvent.click(screen.getByRole("button", { name: "Retry" }));
  expect(retry).toHaveBeenCalledOnce();
  rerender(<ErrorState error={new ApiError(404, "no message")} retry={retry} />);
  expect(screen.queryByRole("button")).toBeNull();
});
