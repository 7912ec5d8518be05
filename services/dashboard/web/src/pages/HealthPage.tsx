import { useQuery } from "@tanstack/react-query";
import { ApiError, authorization, type Health, problemDetail } from "../api/client";
import { duration } from "../format";
import { Failure, Loading } from "../parts/states";

const WORDS = { ok: "All is well", degraded: "Something needs a look", down: "A server is away" } as const;

/** Every dependency, and why it is not well. */
export function HealthPage() {
  const query = useQuery({ queryKey: ["health"], queryFn: ask, refetchInterval: 5_000 });
  if (query.isPending) return <Loading rows={7} />;
  if (query.isError) return <Failure error={query.error} retry={() => void query.refetch()} />;
  return (
    <section className="panel">
      <header className="panel-head">
        <h1>Health</h1>
        <span className={`verdict verdict-${query.data.status}`}>{WORDS[query.data.status]}</span>
      </header>
      <ul className="dependencies">
        {query.data.dependencies.map((each) => (
          <li key={each.name} className={each.ok ? "" : "dependency-bad"}>
            <span className="dependency-sign">
              <span aria-hidden="true">{each.ok ? "●" : "✕"}</span>
              <span className="hidden">{each.ok ? "well" : "not well"}</span>
            </span>
            <b>{each.name}</b>
            <span className="dependency-detail">{each.detail}</span>
            <span className="numeric quiet">{each.seconds === null ? "" : duration(each.seconds)}</span>
          </li>
        ))}
      </ul>
      <p className="quiet">
        The same for programs: <a href="/api/health">/api/health</a>, <a href="/metrics">/metrics</a>, and the query API at{" "}
        <a href="/docs">/docs</a>.
      </p>
    </section>
  );
}

async function ask(): Promise<Health> {
  let answer: Response;
  try {
    answer = await fetch("/api/health", { headers: authorization() });
  } catch {
    throw new ApiError(0, "The dashboard's server does not answer.");
  }
  // With a server away the status is 503 and the body is the same: that is the answer, not a failure to give one.
  const found: unknown = await answer.json();
  if (answer.ok || answer.headers.get("content-type") === "application/json") return found as Health;
  throw new ApiError(answer.status, problemDetail(found) ?? `The server answered ${answer.status}.`);
}
