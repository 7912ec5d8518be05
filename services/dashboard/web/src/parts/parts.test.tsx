import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, it, vi } from "vitest";
import { ApiError, type Snapshot } from "../api/client";
import { Pipeline } from "./Pipeline";
import { Failure } from "./states";
import { StatusMark } from "./StatusMark";

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
  dead_letters: 3,
  point: { at: 0, accepted: 1, completed: 1, dead: 0, lag: 0, p50: null, p95: null, p99: null },
  newest: [],
};

it("shows what waits, and that nobody works on it", () => {
  render(<Pipeline snapshot={snapshot} />);
  expect(screen.getByText("1,200").closest(".stage")?.textContent).toContain("oldest 1 min 35 s");
  expect(screen.getByText("none, while messages wait").closest(".stage-warn")).not.toBeNull();
  expect(screen.getByRole("link").textContent).toContain("3 letters");
});

it("says paused, and full, before anything else", () => {
  const lag = { ...snapshot.lag, paused: true } as Snapshot["lag"];
  render(<Pipeline snapshot={{ ...snapshot, lag }} />);
  expect(screen.getByText("paused by an operator")).toBeDefined();
});

it("shows dashes, not zeros, while nothing is known", () => {
  render(<Pipeline snapshot={null} />);
  expect(screen.queryByText("0")).toBeNull();
  expect(screen.getAllByText("–", { exact: false }).length).toBeGreaterThan(3);
});

it("says a status in words", () => {
  render(<StatusMark status="completed" superseded />);
  expect(screen.getByText("superseded")).toBeDefined();
});

it("offers to ask again where that can help", async () => {
  const retry = vi.fn();
  const { rerender } = render(<Failure error={new ApiError(503, "PostgreSQL: away")} retry={retry} />);
  expect(screen.getByRole("alert").textContent).toContain("PostgreSQL: away");
  await userEvent.click(screen.getByRole("button", { name: "Ask again" }));
  expect(retry).toHaveBeenCalledOnce();
  rerender(<Failure error={new ApiError(404, "no message")} retry={retry} />);
  expect(screen.queryByRole("button")).toBeNull();
});
