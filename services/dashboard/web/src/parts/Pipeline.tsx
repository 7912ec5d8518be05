import type { ReactNode } from "react";
import { Link } from "wouter";
import type { Snapshot } from "../api/client";
import { bytes, count, duration, none, number, rate, short } from "../format";

/** The pipeline as it flows, with what moves and what waits at each place. */
export function Pipeline({ snapshot }: { snapshot: Snapshot | null }) {
  const lag = snapshot?.lag ?? null;
  const rates = snapshot?.rates;
  const workers = snapshot?.workers ?? null;
  const full = lag?.max_bytes != null && lag.max_bytes > 0 ? lag.bytes / lag.max_bytes : null;
  const stuck = lag !== null && lag.total > 0 && workers?.connected === 0;
  return (
    <section className="pipeline" aria-label="The pipeline now">
      <Stage name="API" figure={rate(rates?.accepted)} unit="accepted / s">
        {snapshot === null ? none : snapshot.nats.ok ? "publishing to JetStream" : "nothing is accepted"}
      </Stage>
      <Flow moving={(rates?.accepted ?? 0) > 0} />
      <Stage
        name="Stream"
        figure={short(lag?.waiting)}
        unit="waiting"
        tone={lag?.paused || (full !== null && full > 0.8) ? "warn" : undefined}
      >
        {lag === null
          ? none
          : lag.paused
            ? "paused by an operator"
            : lag.oldest_seconds === null
              ? "empty"
              : `oldest ${duration(lag.oldest_seconds)} · ${bytes(lag.bytes)}${full !== null && full >= 0.01 ? ` (${Math.round(full * 100)} %)` : ""}`}
      </Stage>
      <Flow moving={(lag?.processing ?? 0) > 0 || (rates?.completed ?? 0) > 0} />
      <Stage name="Workers" figure={number(workers?.connected)} unit="connected" tone={stuck ? "warn" : undefined}>
        {stuck ? "none, while messages wait" : lag === null ? none : `${short(lag.processing)} in progress`}
      </Stage>
      <Flow moving={(rates?.completed ?? 0) > 0} />
      <Stage
        name="PostgreSQL"
        figure={rate(rates?.completed)}
        unit="completed / s"
        tone={snapshot !== null && !snapshot.database.ok ? "bad" : undefined}
      >
        {snapshot !== null && !snapshot.database.ok ? "does not answer" : `${count(snapshot?.counts?.completed)} in all`}
      </Stage>
      <Link href="/dead-letters" className={`stage stage-dead ${(snapshot?.dead_letters ?? 0) > 0 ? "stage-bad" : ""}`}>
        <span className="stage-name">Dead letters</span>
        <span className="stage-figure">
          {short(snapshot?.dead_letters)} <small>{snapshot?.dead_letters === 1 ? "letter" : "letters"}</small>
        </span>
        <span className="stage-note">
          {(rates?.dead ?? 0) > 0 ? `${rate(rates?.dead)} / s coming in` : (snapshot?.dead_letters ?? 0) > 0 ? "waiting for a person" : "none"}
        </span>
      </Link>
    </section>
  );
}

interface StageProps {
  name: string;
  figure: string;
  unit: string;
  tone?: "warn" | "bad" | undefined;
  children: ReactNode;
}

function Stage({ name, figure, unit, tone, children }: StageProps) {
  return (
    <div className={`stage ${tone ? `stage-${tone}` : ""}`}>
      <span className="stage-name">{name}</span>
      <span className="stage-figure">
        {figure} <small>{unit}</small>
      </span>
      <span className="stage-note">{children}</span>
    </div>
  );
}

function Flow({ moving }: { moving: boolean }) {
  return (
    <span aria-hidden="true" className={`flow ${moving ? "flow-moving" : ""}`}>
      <i />
    </span>
  );
}
