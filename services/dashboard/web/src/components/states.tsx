import type { ReactNode } from "react";
import { ApiError } from "../api/client";

/** Shown in place of an empty list: what that means, and what to do. */
export function EmptyState({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="state">
      <svg aria-hidden="true" width="56" height="40" viewBox="0 0 56 40" className="state-illustration">
        <path d="M4 8h48M4 20h30M4 32h39" strokeWidth="5" strokeLinecap="round" strokeDasharray="1 9" />
      </svg>
      <h2>{title}</h2>
      {children !== undefined && <div className="state-text">{children}</div>}
    </div>
  );
}

/** Placeholder bars, shown while content is loading. */
export function LoadingState({ rows = 6, label = "Loading" }: { rows?: number; label?: string }) {
  return (
    <div className="loading" role="status" aria-label={label}>
      {Array.from({ length: rows }, (_, at) => (
        <span key={at} style={{ width: `${92 - ((at * 37) % 41)}%` }} />
      ))}
    </div>
  );
}

/** A failed request: the kind of failure, the server's message, and a retry button if a retry can succeed. */
export function ErrorState({ error, retry }: { error: Error; retry?: () => void }) {
  const status = error instanceof ApiError ? error.status : null;
  const title =
    status === 0
      ? "Dashboard unavailable"
      : status === 503
        ? "Temporarily unavailable"
        : status === 404
          ? "Not found"
          : status === 400
            ? "Invalid request"
            : "Request failed";
  return (
    <div className="state state-failure" role="alert">
      <span className="state-icon" aria-hidden="true">
        {status === 404 ? "?" : "!"}
      </span>
      <h2>{title}</h2>
      <div className="state-text">{error.message}</div>
      {retry !== undefined && status !== 404 && status !== 400 && (
        <button type="button" className="button" onClick={retry}>
          Retry
        </button>
      )}
    </div>
  );
}
