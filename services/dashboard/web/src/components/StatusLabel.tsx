import type { Status } from "../api/client";
import { statuses, superseded as supersededMark } from "../generated/words";

/** A status as icon, text and colour, so that colour is never the only cue. */
export function StatusLabel({ status, superseded = false }: { status: Status; superseded?: boolean }) {
  const mark = superseded ? supersededMark : statuses[status];
  return (
    <span className={`status status-${superseded ? "superseded" : status}`} title={mark.meaning}>
      <span aria-hidden="true">{mark.sign}</span> {mark.label}
    </span>
  );
}
