import type { ReactNode } from "react";
import { Link } from "wouter";
import type { Snapshot } from "../api/client";
import { bytes, count, duration, heading, none, number, rate, short } from "../format";
import { statuses, terms } from "../generated/words";

/** The stages of the pipeline, with the rate or the backlog of each. */
export function Pipeline({ snapshot }: { snapshot: Snapshot | null }) {
  const lag = snapshot?.lag ?? null;
  const rates = snapshot?.rates;
  const workers = snapshot?.workers ?? null;
  const usage = lag?.max_bytes != null && lag.max_bytes > 0 ? lag.bytes / lag.max_bytes : null;
  const noWorkers = lag !== null && lag.total > 0 && workers?.connected === 0;
  return (
    <section className="pipeline" aria-label="Pipeline status">
      <Stage name="API" value={rate(rates?.accepted)} unit={statuses.accepted.label}>
        {snapshot === null ? none : snapshot.nats.ok ? "accepting messages" : "not accepting messages"}
      </Stage>
      <Connector active={(rates?.accepted ?? 0) > 0} />
      <Stage
        name="Stream"
        value={short(lag?.waiting)}
        unit={terms.pending}
        severity={lag?.paused || (usage !== null && usage > 0.8) ? "warning" : undefined}
      >
        {lag === null
          ? none
          : lag.paused
            ? "consumer paused"
            : lag.oldest_seconds === null
              ? "empty"
              : `oldest ${duration(lag.oldest_seconds)} · ${bytes(lag.bytes)}${usage !== null && usage >= 0.01 ? ` (${Math.round(usage * 100)} %)` : ""}`}
      </Stage>
      <Connector active={(lag?.processing ?? 0) > 0 || (rates?.completed ?? 0) > 0} />
      <Stage name="Workers" value={number(workers?.connected)} unit="connected" severity={noWorkers ? "warning" : undefined}>
        {noWorkers ? "no workers for pending messages" : lag === null ? none : `${short(lag.processing)} in progress`}
      </Stage>
      <Connector active={(rates?.completed ?? 0) > 0} />
      <Stage
        name="PostgreSQL"
        value={rate(rates?.completed)}
        unit={statuses.completed.label}
        severity={snapshot !== null && !snapshot.database.ok ? "error" : undefined}
      >
        {snapshot !== null && !snapshot.database.ok ? "unavailable" : `${count(snapshot?.counts?.completed)} in total`}
      </Stage>
      <Link href="/dead-letters" className={`stage stage-dead-letters ${(snapshot?.dead_letters ?? 0) > 0 ? "stage-error" : ""}`}>
        <span className="stage-name">{heading(terms.deadLetters)}</span>
        <span className="stage-value">
          {short(snapshot?.dead_letters)} <small>{snapshot?.dead_letters === 1 ? "message" : "messages"}</small>
        </span>
        <span className="stage-note">
          {(rates?.dead ?? 0) > 0 ? rate(rates?.dead) : (snapshot?.dead_letters ?? 0) > 0 ? "awaiting review" : "none"}
        </span>
      </Link>
    </section>
  );
}

interface StageProps {
  name: string;
  value: string;
  unit: string;
  severity?: "warning" | "error" | undefined;
  children: ReactNode;
}

function Stage({ name, value, unit, severity, children }: StageProps) {
  return (
    <div className={`stage ${severity ? `stage-${severity}` : ""}`}>
      <span className="stage-name">{name}</span>
      <span className="stage-value">
        {value} <small>{unit}</small>
      </span>
      <span className="stage-note">{children}</span>
    </div>
  );
}

function Connector({ active }: { active: boolean }) {
  return (
    <span aria-hidden="true" className={`connector ${active ? "connector-active" : ""}`}>
      <i />
    </span>
  );
}
