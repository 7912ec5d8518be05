import { useEffect, useState } from "react";
import { live, useLive } from "../api/live";

/** Warns when the connection, PostgreSQL or NATS is unavailable, so that shown data is stale or unknown. */
export function Banners() {
  const connection = useLive((now) => now.connection);
  const database = useLive((now) => now.snapshot?.database ?? null);
  const nats = useLive((now) => now.snapshot?.nats ?? null);
  const lost = connection.state === "lost";
  return (
    <div className="banners" aria-live="polite">
      {lost && (
        <div className="banner banner-lost" role="alert">
          <span className="banner-icon" aria-hidden="true">
            ⌁
          </span>
          <p>
            <b>Disconnected.</b> Showing data from <Since at={connection.since} />. <Retry at={connection.retryAt} />
          </p>
          <button type="button" className="button" onClick={live.start}>
            Reconnect now
          </button>
        </div>
      )}
      {!lost && database !== null && !database.ok && (
        <Unavailable name="PostgreSQL" detail={database.detail}>
          Messages are still accepted and kept in the stream; workers continue when PostgreSQL is available again. Counts
          and rows are unknown until then.
        </Unavailable>
      )}
      {!lost && nats !== null && !nats.ok && (
        <Unavailable name="NATS" detail={nats.detail}>
          No messages are accepted until it is available again. Lag, rates and dead letters are unknown.
        </Unavailable>
      )}
    </div>
  );
}

function Unavailable({ name, detail, children }: { name: string; detail: string; children: string }) {
  return (
    <div className="banner banner-unavailable" role="alert">
      <span className="banner-icon" aria-hidden="true">
        !
      </span>
      <div>
        <p>
          <b>{name} is unavailable.</b> {children}
        </p>
        <p className="banner-detail">{detail}</p>
      </div>
    </div>
  );
}

function Since({ at }: { at: number }) {
  const seconds = Math.max(0, Math.round((useNow(1000) - at) / 1000));
  return <>{seconds < 60 ? `${seconds} s ago` : `${Math.floor(seconds / 60)} min ago`}</>;
}

function Retry({ at }: { at: number }) {
  const seconds = Math.ceil((at - useNow(500)) / 1000);
  return <>{seconds > 0 ? `Retrying in ${seconds} s.` : "Retrying …"}</>;
}

/** The current time, updated every `interval` milliseconds. */
export function useNow(interval: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), interval);
    return () => clearInterval(timer);
  }, [interval]);
  return now;
}
