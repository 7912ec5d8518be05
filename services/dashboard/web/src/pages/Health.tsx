import { useQuery } from "@tanstack/react-query";
import { ApiError, authorization, type Health as HealthReport, problemDetail } from "../api/client";
import { duration } from "../format";
import { healths } from "../generated/words";
import { ErrorState, LoadingState } from "../components/states";

const LABELS = { ok: "Healthy", degraded: "Degraded", down: "Unavailable" } as const;

/** The state of every dependency, and why it is unhealthy. */
export function Health() {
  const query = useQuery({ queryKey: ["health"], queryFn: fetchHealth, refetchInterval: 5_000 });
  if (query.isPending) return <LoadingState rows={7} />;
  if (query.isError) return <ErrorState error={query.error} retry={() => void query.refetch()} />;
  return (
    <section className="panel">
      <header className="panel-header">
        <h1>Health</h1>
        <span className={`health-status health-status-${query.data.status}`}>{LABELS[query.data.status]}</span>
      </header>
      <ul className="dependencies">
        {query.data.dependencies.map((each) => (
          <li key={each.name} className={each.ok ? "" : "dependency-unhealthy"}>
            <span className="dependency-icon">
              <span aria-hidden="true">{(each.ok ? healths.healthy : healths.failed).sign}</span>
              <span className="visually-hidden">{each.ok ? "healthy" : "unhealthy"}</span>
            </span>
            <b>{each.name}</b>
            <span className="dependency-detail">{each.detail}</span>
            <span className="numeric muted">{each.seconds === null ? "" : duration(each.seconds)}</span>
          </li>
        ))}
      </ul>
      <p className="muted">
        For scripts and monitoring: <a href="/api/health">/api/health</a>, <a href="/metrics">/metrics</a>, and the query API at{" "}
        <a href="/docs">/docs</a>.
      </p>
    </section>
  );
}

async function fetchHealth(): Promise<HealthReport> {
  let response: Response;
  try {
    response = await fetch("/api/health", { headers: authorization() });
  } catch {
    throw new ApiError(0, "Cannot reach the dashboard server. Check that it is running.");
  }
  // If PostgreSQL or NATS is unavailable, the status is 503 and the body is still a health report.
  const content: unknown = await response.json();
  if (response.ok || response.headers.get("content-type") === "application/json") return content as HealthReport;
  throw new ApiError(response.status, problemDetail(content) ?? `The server returned status ${response.status}.`);
}
