import { describe, expect, it } from "vitest";
import { ago, bytes, count, duration, rate, short } from "./format";

describe("durations", () => {
  it.each([
    [null, "–"],
    [0, "0 ms"],
    [0.0004, "0.4 ms"],
    [0.0144, "14 ms"],
    [0.9996, "1.0 s"],
    [9.94, "9.9 s"],
    [59.9, "60 s"],
    [59.96, "1 min 0 s"],
    [125, "2 min 5 s"],
    [7260, "2 h 1 min"],
    [90_000, "1 d 1 h"],
  ])("%s is %s", (seconds, text) => expect(duration(seconds)).toBe(text));
});

it("marks estimates", () => {
  expect(count({ value: 1234, exact: true })).toBe("1,234");
  expect(count({ value: 10_012_345, exact: false })).toBe("≈ 10M");
  expect(count(null)).toBe("–");
});

it("distinguishes small rates from zero", () => {
  expect([0, 0.04, 3.21, 240.4, 15_400].map(rate)).toEqual(["0", "< 0.1", "3.2", "240", "15.4K"]);
});

it("shortens sizes and ages", () => {
  expect([5, 1500, 2_500_000, 1_073_741_824].map(bytes)).toEqual(["5 B", "1.5 kB", "2.5 MB", "1.1 GB"]);
  const now = Date.parse("2024-01-02T00:00:00Z");
  expect(ago("2024-01-01T23:59:59.5Z", now)).toBe("now");
  expect(ago("2024-01-01T23:30:00Z", now)).toBe("30 min ago");
  expect(short(9999)).toBe("9,999");
});
