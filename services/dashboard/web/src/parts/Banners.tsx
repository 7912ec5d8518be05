import { useEffect, useState } from "react";
import { live, useLive } from "../api/live";

/** What stands between this page and the truth: the connection, PostgreSQL, NATS. Nothing where all is well. */
export function Banners() {
  const connection = useLive((now) => now.connection);
  const database = useLive((now) => now.snapshot?.database ?? null);
  const nats = useLive((now) => now.snapshot?.nats ?? null);
  const lost = connection.state === "lost";
  return (
    <div className="banners" aria-live="polite">
      {lost && (
        <div className="banner banner-lost" role="alert">
          <span className="banner-sign" aria-hidden="true">
            ⌁
          </span>
          <p>
            <b>Disconnected.</b> What you see is from <Since at={connection.since} />, and stands still.{" "}
            <Retry at={connection.retryAt} />
          </p>
          <button type="button" className="button" onClick={live.start}>
            Connect now
          </button>
        </div>
      )}
      {!lost && database !== null && !database.ok && (
        <Away name="PostgreSQL" detail={database.detail}>
          Messages are still accepted and kept in the stream; workers go on when it is back. Counts and rows are unknown
          until then.
        </Away>
      )}
      {!lost && nats !== null && !nats.ok && (
        <Away name="NATS" detail={nats.detail}>
          Nothing is accepted while it is away. Lag, rates and dead letters are unknown until then.
        </Away>
      )}
    </div>
  );
}

function Away({ name, detail, children }: { name: string; detail: string; children: string }) {
  return (
    <div className="banner banner-away" role="alert">
      <span className="banner-sign" aria-hidden="true">
        !
      </span>
      <div>
        <p>
          <b>{name} does not answer.</b> {children}
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
  return <>{seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again …"}</>;
}

/** The time, renewed every ``interval`` milliseconds. */
export function useNow(interval: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), interval);
    return () => clearInterval(timer);
  }, [interval]);
  return now;
}
