import { durationUnits, none, shortUnits, sizeUnits } from "./generated/words";

export { none };

// The same functions as nomnom.presentation.figures in Python; format.cases.json tests both.

type Maybe<T> = T | null | undefined;

const separated = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A whole number, with thousands separators. */
export function number(value: Maybe<number>): string {
  return value == null ? none : separated.format(value);
}

/** A count; estimates are prefixed with ≈. */
export function count(value: Maybe<{ value: number; exact: boolean }>): string {
  if (value == null) return none;
  return value.exact ? number(value.value) : `≈ ${number(value.value)}`;
}

/** A number in at most five characters. */
export function short(value: Maybe<number>): string {
  if (value == null) return none;
  if (value < 9999.5) return number(rounded(value));
  const [scaled, unit] = scale(value / 1000, 1000, 999.5, shortUnits);
  return (scaled < 9.95 ? tenths(scaled) : String(rounded(scaled))) + unit;
}

/** A number per second. */
export function rate(value: Maybe<number>): string {
  if (value == null) return none;
  if (value > 0 && value < 0.05) return "<0.1/s";
  return `${value > 0 && value < 9.95 ? tenths(value) : number(rounded(value))}/s`;
}

/** A size in bytes, in binary units. */
export function bytes(value: Maybe<number>): string {
  if (value == null) return none;
  const [scaled, unit] = scale(value, 1024, 1023.5, sizeUnits);
  return `${unit !== "B" && scaled < 99.95 ? tenths(scaled) : rounded(scaled)} ${unit}`;
}

/** A duration, given in seconds, in its one or two largest units. */
export function duration(seconds: Maybe<number>): string {
  if (seconds == null) return none;
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 0.00995) {
    const text = tenths(seconds * 1000).replace(/\.0$/, "");
    return text === "0" ? "0s" : `${text}ms`;
  }
  if (seconds < 0.9995) return `${rounded(seconds * 1000)}ms`;
  if (seconds < 59.95) return `${tenths(seconds).replace(/\.0$/, "")}s`;
  const whole = rounded(seconds);
  const at = durationUnits.findIndex(([, length]) => whole >= length);
  const [large, largeSeconds] = durationUnits[at] ?? durationUnits[0];
  const [small, smallSeconds] = durationUnits[at + 1] ?? durationUnits[0];
  const rest = Math.floor((whole % largeSeconds) / smallSeconds);
  return `${Math.floor(whole / largeSeconds)}${large}${rest > 0 ? ` ${rest}${small}` : ""}`;
}

/** The local time of day. */
export function clock(at: Date): string {
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(padded).join(":");
}

/** The local date and time. */
export function moment(at: Date): string {
  return `${at.getFullYear()}-${padded(at.getMonth() + 1)}-${padded(at.getDate())} ${clock(at)}`;
}

/** A point in time: the time of day, with the date unless it is today. */
export function timestamp(iso: Maybe<string>, now: Date = new Date()): string {
  if (iso == null) return none;
  const at = new Date(iso);
  return at.toDateString() === now.toDateString() ? clock(at) : moment(at);
}

/** The age of a point in time. */
export function ago(iso: string, now: number = Date.now()): string {
  const seconds = Math.max(0, Math.floor((now - new Date(iso).getTime()) / 1000));
  return seconds === 0 ? "now" : `${duration(seconds)} ago`;
}

/** A term as the heading of a column or the label of a property. */
export function heading(term: string): string {
  return term.charAt(0).toUpperCase() + term.slice(1);
}

function scale<T>(value: number, factor: number, limit: number, units: readonly [T, ...T[]]): [number, T] {
  let [unit] = units;
  let scaled = value;
  for (const next of units.slice(1)) {
    if (scaled < limit) break;
    scaled /= factor;
    unit = next;
  }
  return [scaled, unit];
}

function rounded(value: number): number {
  return Math.floor(value + 0.5);
}

function tenths(value: number): string {
  const whole = Math.floor(value * 10 + 0.5);
  return `${Math.floor(whole / 10)}.${whole % 10}`;
}

function padded(value: number): string {
  return String(value).padStart(2, "0");
}
