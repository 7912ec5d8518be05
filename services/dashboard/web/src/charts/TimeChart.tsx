import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  label: string;
  /** The CSS custom property that holds its colour. */
  color: string;
  values: readonly (number | null)[];
  fill?: boolean;
  dash?: number[];
}

interface Props {
  title: string;
  times: readonly number[];
  lines: readonly Line[];
  /** Formats a value for the axis and the legend. */
  format: (value: number | null) => string;
  height: number;
  /** Charts with the same key share their cursor. */
  sync?: string;
  /** Length of the time axis, in seconds. */
  span: number;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const CLOCK_SECONDS = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});

/** A line chart over time, drawn on a canvas outside React: ten updates per second cause no rendering. */
export function TimeChart({ title, times, lines, format, height, sync, span }: Props) {
  const container = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const theme = useTheme();
  const structure = lines.map((line) => `${line.label}${line.color}`).join();
  const newest = useRef({ times, lines, span });

  useEffect(() => {
    // Must run before the effect below, so that a recreated chart starts with the newest data.
    newest.current = { times, lines, span };
  }, [times, lines, span]);

  useEffect(() => {
    const element = container.current;
    if (element === null) return;
    const style = getComputedStyle(element);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--text-faint"),
      grid: { stroke: color("--grid"), width: 1 },
      ticks: { show: false },
      font: `11px ${style.fontFamily}`,
    };
    const drawn = new uPlot(
      {
        width: Math.max(element.clientWidth, 120),
        height,
        padding: [8, 4, 0, 0],
        legend: { show: false },
        cursor: {
          y: false,
          drag: { setScale: false, x: false },
          points: { size: 7, width: 2 },
          ...(sync === undefined ? {} : { sync: { key: sync } }),
        },
        scales: {
          x: {
            range: () => {
              const last = newest.current.times.at(-1) ?? Date.now() / 1000;
              return [last - newest.current.span, last];
            },
          },
          y: { range: (_: uPlot, __: number, high: number) => [0, Math.max(high * 1.12, Number.MIN_VALUE) || 1] },
        },
        axes: [
          {
            ...axis,
            size: 26,
            space: 70,
            values: (_: uPlot, splits: number[]) =>
              splits.map((split) => (newest.current.span <= 600 ? CLOCK_SECONDS : CLOCK).format(split * 1000)),
          },
          { ...axis, size: 58, space: 34, values: (_: uPlot, splits: number[]) => splits.map((split) => format(split)) },
        ],
        series: [
          {},
          ...newest.current.lines.map((line) => ({
            label: line.label,
            stroke: color(line.color),
            width: 1.75,
            points: { show: false },
            spanGaps: false,
            ...(line.fill ? { fill: `color-mix(in srgb, ${color(line.color)} 14%, transparent)` } : {}),
            ...(line.dash ? { dash: line.dash } : {}),
          })),
        ],
        hooks: { setCursor: [(self: uPlot) => setAt(self.cursor.idx ?? null)] },
      },
      table(newest.current.times, newest.current.lines),
      element,
    );
    chart.current = drawn;
    const resize = new ResizeObserver(() => drawn.setSize({ width: Math.max(element.clientWidth, 120), height }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      drawn.destroy();
      chart.current = null;
    };
  }, [structure, height, sync, format, theme]);

  useEffect(() => {
    chart.current?.setData(table(times, lines));
  }, [times, lines, span]);

  const shown = at ?? times.length - 1;
  const when = times[shown];
  return (
    <figure className="chart">
      <figcaption>
        <span className="chart-title">{title}</span>
        <span className="legend">
          {lines.map((line) => (
            <span key={line.label} className="legend-entry">
              <svg aria-hidden="true" width="14" height="8">
                <line
                  x1="0"
                  x2="14"
                  y1="4"
                  y2="4"
                  stroke={`var(${line.color})`}
                  strokeWidth="2.5"
                  strokeDasharray={line.dash?.join(" ")}
                />
              </svg>
              {line.label} <b>{format(line.values[shown] ?? null)}</b>
            </span>
          ))}
          {at !== null && when !== undefined && (
            <time className="legend-time">{CLOCK_SECONDS.format(when * 1000)}</time>
          )}
        </span>
      </figcaption>
      <div ref={container} className="chart-canvas" style={{ height }} role="img" aria-label={summary(title, lines, format)} />
    </figure>
  );
}

function table(times: readonly number[], lines: readonly Line[]): uPlot.AlignedData {
  return [times as number[], ...lines.map((line) => line.values as (number | null)[])];
}

function summary(title: string, lines: readonly Line[], format: (value: number | null) => string): string {
  const parts = lines.map((line) => {
    const known = line.values.filter((value): value is number => value !== null);
    if (known.length === 0) return `${line.label}: no data`;
    return `${line.label}: current ${format(known.at(-1) ?? null)}, maximum ${format(Math.max(...known))}`;
  });
  return `${title}. ${parts.join("; ")}`;
}

/** The active theme, the user's or the system's; canvases do not follow custom properties by themselves. */
function useTheme(): string {
  const [theme, setTheme] = useState(activeTheme);
  useEffect(() => {
    const change = () => setTheme(activeTheme());
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", change);
    const chosen = new MutationObserver(change);
    chosen.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => {
      system.removeEventListener("change", change);
      chosen.disconnect();
    };
  }, []);
  return theme;
}

function activeTheme(): string {
  return document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}
