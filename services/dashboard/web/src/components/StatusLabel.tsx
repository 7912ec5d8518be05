import type { Status } from "../api/client";

const LABELS: Record<Status, { icon: string; label: string }> = {
  accepted: { icon: "○", label: "accepted" },
  processing: { icon: "◐", label: "processing" },
  completed: { icon: "●", label: "completed" },
  failed: { icon: "↻", label: "failed, will retry" },
  dlq: { icon: "✕", label: "dead letter" },
};

/** A status as icon, text and colour, so that colour is never the only cue. */
export function StatusLabel({ status, superseded = false }: { status: Status; superseded?: boolean }) {
  const shown = superseded ? { icon: "◌", label: "superseded" } : LABELS[status];
  return (
    <span className={`status status-${superseded ? "superseded" : status}`}>
      <span aria-hidden="true">{shown.icon}</span> {shown.label}
    </span>
  );
}
