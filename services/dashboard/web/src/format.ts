const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dayClock = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});

export const none = "–";

/** A whole number, with thousands separators. */
export function number(value: number | null | undefined): string {
  return value == null ? none : whole.format(value);
}

/** A count; estimates are shortened and prefixed with ≈. */
export function count(value: { value: number; exact: boolean } | null | undefined): string {
  if (value == null) return none;
  return value.exact ? whole.format(value.value) : `≈ ${short(value.value)}`;
}

/** A number; from 10,000 in compact notation. */
export function short(value: number | null | undefined): string {
  if (value == null) return none;
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

/** Messages per second. */
export function rate(value: number | null | undefined): string {
  if (value == null) return none;
  if (value === 0) return "0";
  if (value < 0.1) return "< 0.1";
  return value < 10 ? value.toFixed(1) : short(value);
}

/** A duration, given in seconds. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return none;
  if (seconds === 0) return "0 ms";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3599.5) return two(Math.round(seconds), 60, "min", "s");
  if (seconds < 86_370) return two(Math.round(seconds / 60), 60, "h", "min");
  return two(Math.round(seconds / 3600), 24, "d", "h");
}

function two(units: number, size: number, large: string, small: string): string {
  return `${Math.floor(units / size)} ${large} ${units % size} ${small}`;
}

/** A size in bytes. */
export function bytes(value: number | null | undefined): string {
  if (value == null) return none;
  if (value < 1000) return `${value} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let size = value;
  let unit = "B";
  for (const next of units) {
    if (size < 1000) break;
    size /= 1000;
    unit = next;
  }
  return `${size < 10 ? size.toFixed(1) : size.toFixed(0)} ${unit}`;
}

/** A point in time: the time of day, with the date unless it is today. */
export function timestamp(iso: string | null | undefined, now: Date = new Date()): string {
  if (iso == null) return none;
  const at = new Date(iso);
  return at.toDateString() === now.toDateString() ? clock.format(at) : dayClock.format(at);
}

/** How long ago, for use in lists. */
export function ago(iso: string, now: number = Date.now()): string {
  const seconds = Math.max(0, (now - new Date(iso).getTime()) / 1000);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
