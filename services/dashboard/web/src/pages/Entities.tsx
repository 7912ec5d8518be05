import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { body, client } from "../api/client";
import { bytes, count } from "../format";
import { ErrorState, LoadingState } from "../components/states";

/** The entities of the deployment's schema, with the rows and the size of their tables. */
export function Entities() {
  const query = useQuery({
    queryKey: ["entities"],
    queryFn: () => body(client.GET("/api/entities")),
    refetchInterval: 10_000,
  });
  if (query.isPending) return <LoadingState rows={8} />;
  if (query.isError) return <ErrorState error={query.error} retry={() => void query.refetch()} />;
  const largest = Math.max(1, ...query.data.entities.map((each) => each.rows.value));
  return (
    <section className="panel">
      <header className="panel-header">
        <h1>Entities</h1>
        <span className="muted">schema {query.data.title}</span>
      </header>
      <ul className="entities">
        {query.data.entities.map((each) => (
          <li key={each.name}>
            <Link href={`/entities/${each.name}`} className="entity">
              <span className="entity-tag mono">{each.tag}</span>
              <span className="entity-name">
                <b>{each.title}</b>
                <small>
                  {each.table}
                  {each.parent !== null ? `, child of ${each.parent}` : ""}
                </small>
              </span>
              <span className="entity-bar" aria-hidden="true">
                <span style={{ width: `${each.rows.value > 0 ? Math.max(1, (each.rows.value / largest) * 100) : 0}%` }} />
              </span>
              <span className="entity-rows">
                {count(each.rows)} <small>rows</small>
                <small className="entity-size">{bytes(each.bytes)}</small>
              </span>
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}
