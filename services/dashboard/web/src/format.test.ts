import { describe, expect, it } from "vitest";
import cases from "./format.cases.json";
import { ago, bytes, clock, count, duration, moment, number, rate, short, timestamp } from "./format";

const NOW = Date.parse("2024-01-02T00:00:00Z");

// tests/unit/test_presentation.py checks Python's functions with the same cases.
const functions: Record<keyof typeof cases, (value: never) => string> = {
  count: number,
  estimate: (value: number) => count({ value, exact: false }),
  short,
  rate,
  size: bytes,
  duration,
  age: (seconds: number) => ago(new Date(NOW - seconds * 1000).toISOString(), NOW),
  clock: (local: string) => clock(new Date(local)),
  moment: (local: string) => moment(new Date(local)),
};

describe.each(Object.entries(functions))("%s", (name, format) => {
  const table = cases[name as keyof typeof cases] as unknown[][];
  it.each(table)("of %s is %s", (value, text) => expect(format(value as never)).toBe(text));
});

it("prefixes estimates only", () => {
  expect(count({ value: 1234, exact: true })).toBe("1,234");
  expect(count(null)).toBe("–");
});

it("shows the date of a timestamp unless it is today", () => {
  const now = new Date("2024-05-02T12:00:00");
  expect(timestamp("2024-05-02T09:04:03", now)).toBe("09:04:03");
  expect(timestamp("2024-05-01T09:04:03", now)).toBe("2024-05-01 09:04:03");
  expect(timestamp(null)).toBe("–");
});
