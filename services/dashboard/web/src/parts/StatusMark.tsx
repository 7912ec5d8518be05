import type { Status } from "../api/client";

const MARKS: Record<Status, { sign: string; label: string }> = {
  accepted: { sign: "○", label: "accepted" },
  processing: { sign: "◐", label: "processing" },
  completed: { sign: "●", label: "completed" },
  failed: { sign: "↻", label: "failed, will retry" },
  dlq: { sign: "✕", label: "dead letter" },
};

/** A status as sign, word and colour: colour is never the only one. */
export function StatusMark({ status, superseded = false }: { status: Status; superseded?: boolean }) {
  const mark = superseded ? { sign: "◌", label: "superseded" } : MARKS[status];
  return (
    <span className={`status status-${superseded ? "superseded" : status}`}>
      <span aria-hidden="true">{mark.sign}</span> {mark.label}
    </span>
  );
}
