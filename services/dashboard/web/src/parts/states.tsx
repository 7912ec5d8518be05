import type { ReactNode } from "react";
import { ApiError } from "../api/client";

/** What is shown where there is nothing: what it means, and what to do. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="state">
      <svg aria-hidden="true" width="56" height="40" viewBox="0 0 56 40" className="state-art">
        <path d="M4 8h48M4 20h30M4 32h39" strokeWidth="5" strokeLinecap="round" strokeDasharray="1 9" />
      </svg>
      <h2>{title}</h2>
      {children !== undefined && <div className="state-text">{children}</div>}
    </div>
  );
}

/** Grey bars in the shape of what is on its way. */
export function Loading({ rows = 6, label = "Loading" }: { rows?: number; label?: string }) {
  return (
    <div className="loading" role="status" aria-label={label}>
      {Array.from({ length: rows }, (_, at) => (
        <span key={at} style={{ width: `${92 - ((at * 37) % 41)}%` }} />
      ))}
    </div>
  );
}

/** A request that failed: which kind of failure, what the server says, and a way to ask again. */
export function Failure({ error, retry }: { error: Error; retry?: () => void }) {
  const status = error instanceof ApiError ? error.status : null;
  const title =
    status === 0
      ? "The dashboard does not answer"
      : status === 503
        ? "Not available now"
        : status === 404
          ? "Not found"
          : status === 400
            ? "That cannot be asked"
            : "Something failed";
  return (
    <div className="state state-failure" role="alert">
      <span className="state-sign" aria-hidden="true">
        {status === 404 ? "?" : "!"}
      </span>
      <h2>{title}</h2>
      <div className="state-text">{error.message}</div>
      {retry !== undefined && status !== 404 && status !== 400 && (
        <button type="button" className="button" onClick={retry}>
          Ask again
        </button>
      )}
    </div>
  );
}
