import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link } from "wouter";
import { body, client, type Point, type Snapshot } from "../api/client";
import { useLive } from "../api/live";
import { type Line, TimeChart } from "../charts/TimeChart";
import { ago, count, duration, none, number, rate, short } from "../format";
import { statuses } from "../generated/words";
import { MessageTable } from "../components/MessageTable";
import { Pipeline } from "../components/Pipeline";
import { EmptyState, LoadingState } from "../components/states";

const WINDOWS = { "5m": 300, "1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600 } as const;
type Window = keyof typeof WINDOWS;

/** The current state of the pipeline, with throughput and latency over time. */
export function Overview() {
  const snapshot = useLive((now) => now.snapshot);
  return (
    <>
      <h1 className="visually-hidden">Overview</h1>
      <Pipeline snapshot={snapshot} />
      <Charts />
      <div className="columns">
        <StatusBreakdown snapshot={snapshot} />
        <LatencyPanel snapshot={snapshot} />
      </div>
      <section className="panel">
        <header className="panel-header">
          <h2>Newest messages</h2>
          <Link href="/messages" className="more-link">
            All messages
          </Link>
        </header>
        <Newest snapshot={snapshot} />
      </section>
    </>
  );
}

function Newest({ snapshot }: { snapshot: Snapshot | null }) {
  if (snapshot === null) return <LoadingState rows={5} label="Loading the newest messages" />;
  if (snapshot.newest === null) return <p className="muted">Unknown while PostgreSQL is unavailable.</p>;
  if (snapshot.newest.length === 0) {
    return (
      <EmptyState title="No messages yet">
        Post a message; it appears here within a second:
        <code>{"curl -H 'Content-Type: text/plain' -d 'O|1|…' http://…/api/ingest/message"}</code>
      </EmptyState>
    );
  }
  return <MessageTable messages={snapshot.newest} caption="Newest messages" />;
}

function Charts() {
  const [window, setWindow] = useState<Window>("5m");
  const live = useLive((now) => now.points);
  const stats = useQuery({
    queryKey: ["stats", window],
    queryFn: () => body(client.GET("/api/stats", { params: { query: { window } } })),
    refetchInterval: window === "5m" ? 30_000 : 10_000,
    placeholderData: keepPreviousData,
  });
  const history = stats.data?.window === window ? stats.data.points : undefined;
  const points = useMemo(() => (window === "5m" ? withLivePoints(history ?? [], live) : (history ?? [])), [window, history, live]);
  const times = useMemo(() => points.map((point) => point.at), [points]);
  const throughput = useMemo(
    () => [
      line(points, "accepted", "--accepted", "accepted", true),
      line(points, "completed", "--completed", "completed"),
      { ...line(points, "dead", "--error", "dead letters"), dash: [4, 3] },
    ],
    [points],
  );
  const lag = useMemo(() => [line(points, "lag", "--warning", "lag", true)], [points]);
  const latency = useMemo(
    () => [
      line(points, "p50", "--p50", "p50"),
      line(points, "p95", "--p95", "p95"),
      { ...line(points, "p99", "--p99", "p99"), dash: [4, 3] },
    ],
    [points],
  );
  const span = WINDOWS[window];
  const since = stats.data?.complete_from;
  const partial = since != null && stats.data !== undefined && isPartial(since, stats.data.at, span);
  return (
    <section className="panel charts">
      <header className="panel-header">
        <h2>Throughput and latency</h2>
        <div className="button-group" role="group" aria-label="Time window">
          {(Object.keys(WINDOWS) as Window[]).map((each) => (
            <button key={each} type="button" aria-pressed={each === window} onClick={() => setWindow(each)}>
              {each}
            </button>
          ))}
        </div>
      </header>
      {partial && <p className="muted">History is still loading: complete since {new Date(since).toLocaleTimeString()}.</p>}
      <TimeChart title="Messages / s" times={times} lines={throughput} format={rate} height={210} sync="overview" span={span} />
      <div className="columns">
        {window === "5m" ? (
          <TimeChart title="Lag" times={times} lines={lag} format={short} height={130} sync="overview" span={span} />
        ) : null}
        <TimeChart
          title="Latency"
          times={times}
          lines={latency}
          format={duration}
          height={130}
          sync="overview"
          span={span}
        />
      </div>
    </section>
  );
}

/** Whether a series that is complete since a point in time misses more than a minute of its span. */
function isPartial(since: string, at: string, span: number): boolean {
  return new Date(since).getTime() > new Date(at).getTime() - span * 1000 + 60_000;
}

type Series = "accepted" | "completed" | "dead" | "lag" | "p50" | "p95" | "p99";

function line(points: readonly Point[], series: Series, color: string, label: string, fill = false): Line {
  return { label, color, fill, values: points.map((point) => point[series]) };
}

/** The history, followed by the live samples after its end; five minutes at most. */
export function withLivePoints(history: readonly Point[], live: readonly Point[]): readonly Point[] {
  const last = history.at(-1)?.at ?? 0;
  const after = live.filter((point) => point.at > last + 0.5);
  const newest = after.at(-1)?.at ?? last;
  return [...history, ...after].filter((point) => point.at > newest - 300);
}

const STATUSES = Object.keys(statuses) as (keyof typeof statuses)[];
/** Listed only if there are any. */
const REMOVED: ReadonlySet<string> = new Set(["deleted", "purged", "expired"]);

function StatusBreakdown({ snapshot }: { snapshot: Snapshot | null }) {
  const counts = snapshot?.counts ?? null;
  const parts = STATUSES.map((name) => ({ name, mark: statuses[name], value: counts?.[name] ?? null })).filter(
    (part) => !REMOVED.has(part.name) || (part.value?.value ?? 0) > 0,
  );
  const total = parts.reduce((sum, part) => sum + (part.value?.value ?? 0), 0);
  return (
    <section className="panel">
      <header className="panel-header">
        <h2>Messages by status</h2>
        <span className="muted">{counts === null ? none : `${count({ value: total, exact: counts.total.exact })} messages`}</span>
      </header>
      <div className="status-bar" aria-hidden="true">
        {parts.map((part) =>
          part.value !== null && part.value.value > 0 ? (
            <span key={part.name} className={`status-bar-${part.name}`} style={{ flexGrow: part.value.value / total }} />
          ) : null,
        )}
      </div>
      <dl className="breakdown">
        {parts.map((part) => (
          <div key={part.name}>
            <dt title={part.mark.meaning}>
              <span className={`legend-swatch status-bar-${part.name}`} aria-hidden="true" /> {part.mark.label}
            </dt>
            <dd>
              {count(part.value)} <small>{share(part.value?.value, total)}</small>
            </dd>
          </div>
        ))}
      </dl>
      <AccountLine account={snapshot?.account ?? null} />
      {snapshot?.expiring && <p className="error-message" role="alert">{snapshot.expiring}.</p>}
    </section>
  );
}

/** Whether every accepted message is accounted for. */
function AccountLine({ account }: { account: Snapshot["account"] }) {
  if (account === null) return null;
  if (account.unexplained > 0) {
    return (
      <p className="error-message" role="alert">
        {number(account.unexplained)} accepted {account.unexplained === 1 ? "message is" : "messages are"} unexplained. Run nomnom account.
      </p>
    );
  }
  return (
    <p className="muted">
      {account.verified_at === null ? "The account is not verified yet." : `0 unexplained, verified ${ago(account.verified_at)}.`}
    </p>
  );
}

function share(value: number | undefined, total: number): string {
  if (value === undefined || total === 0 || value === 0) return "";
  const percent = (value / total) * 100;
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

function LatencyPanel({ snapshot }: { snapshot: Snapshot | null }) {
  const latency = snapshot?.latency ?? null;
  const worst = latency?.p99 ?? 0;
  return (
    <section className="panel">
      <header className="panel-header">
        <h2>Latency, accepted to completed</h2>
        <span className="muted">{latency === null ? none : `${number(latency.messages)} messages in the last 5 min`}</span>
      </header>
      {latency?.p50 === null ? (
        <p className="muted">No messages were completed in the last five minutes.</p>
      ) : (
        <dl className="percentiles">
          {(["p50", "p95", "p99"] as const).map((each) => (
            <div key={each}>
              <dt>{each}</dt>
              <dd>
                <span
                  className="percentile-bar"
                  aria-hidden="true"
                  style={{ width: `${worst > 0 ? Math.max(2, ((latency?.[each] ?? 0) / worst) * 100) : 0}%`, background: `var(--${each})` }}
                />
                <b>{duration(latency?.[each])}</b>
              </dd>
            </div>
          ))}
        </dl>
      )}
    </section>
  );
}
