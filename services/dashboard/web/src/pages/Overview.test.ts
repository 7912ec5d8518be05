import { expect, it } from "vitest";
import type { Point } from "../api/client";
import { withLivePoints } from "./Overview";

const point = (at: number): Point => ({
  at,
  accepted: 1,
  completed: 1,
  dead: 0,
  lag: 0,
  p50: null,
  p95: null,
  p99: null,
});

it("appends live samples after the history", () => {
  const live = [99, 100.2, 101.2, 102.2].map(point);
  expect(withLivePoints([90, 100].map(point), live).map((each) => each.at)).toEqual([90, 100, 101.2, 102.2]);
});

it("keeps five minutes of points", () => {
  expect(withLivePoints([0, 10, 200].map(point), [point(305)]).map((each) => each.at)).toEqual([10, 200, 305]);
});

it("returns no points without history and samples", () => {
  expect(withLivePoints([], [])).toEqual([]);
});
