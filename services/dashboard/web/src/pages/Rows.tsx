import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { type ColumnDef, flexRender, getCoreRowModel, useReactTable } from "@tanstack/react-table";
import { type SyntheticEvent, useMemo, useState } from "react";
import { Link } from "wouter";
import { body, client, type Column, type Row } from "../api/client";
import { bytes, count, number } from "../format";
import { Pager } from "../components/Pager";
import { EmptyState, ErrorState, LoadingState } from "../components/states";
import { useQueryParameters } from "../components/useQueryParameters";

const OPERATORS: Record<string, string> = {
  eq: "=",
  ne: "≠",
  lt: "<",
  lte: "≤",
  gt: ">",
  gte: "≥",
  contains: "contains",
  is: "is",
};

/** The rows of one entity, with columns from its schema: sorted, filtered and paginated. */
export function Rows({ name }: { name: string }) {
  const [parameters, change] = useQueryParameters();
  const sort = parameters.get("sort") ?? undefined;
  const filters = useMemo(() => parameters.get("filter")?.split("\n") ?? [], [parameters]);
  const query = useInfiniteQuery({
    queryKey: ["rows", name, sort, filters],
    queryFn: ({ pageParam }) =>
      body(
        client.GET("/api/entities/{name}", {
          params: { path: { name }, query: { limit: 100, sort, filter: filters, cursor: pageParam } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    placeholderData: keepPreviousData,
  });
  const first = query.data?.pages[0];
  const rows = useMemo(() => query.data?.pages.flatMap((page) => page.rows) ?? [], [query.data]);
  const columns = first?.columns;
  const searched = query.data?.pages.reduce((sum, page) => sum + (page.searched ?? 0), 0) ?? 0;
  const searching = query.data?.pages.at(-1)?.searched != null;
  return (
    <section className="panel">
      <p className="breadcrumbs">
        <Link href="/entities">Entities</Link> <span aria-hidden="true">/</span> {name}
      </p>
      <header className="panel-header">
        <h1>{first?.entity.title ?? name}</h1>
        {first !== undefined && (
          <span className="muted">
            {count(first.entity.rows)} rows · {bytes(first.entity.bytes)} · {first.entity.table}
          </span>
        )}
      </header>
      {columns !== undefined && (
        <Filters
          columns={columns}
          filters={filters}
          change={(next) => change({ filter: next.length > 0 ? next.join("\n") : null })}
        />
      )}
      {query.isPending ? (
        <LoadingState rows={12} />
      ) : query.isError && rows.length === 0 ? (
        <ErrorState error={query.error} retry={() => void query.refetch()} />
      ) : (
        <div className={query.isPlaceholderData ? "stale" : ""}>
          {rows.length === 0 ? (
            <EmptyState title={filters.length > 0 ? "No matching rows found yet" : "No rows yet"}>
              {searched > 0 ? `${number(searched)} rows searched.` : "Rows are listed here once workers have written them."}
            </EmptyState>
          ) : (
            <RowTable
              title={first?.entity.title ?? name}
              columns={columns ?? []}
              rows={rows}
              sort={first?.sort ?? ""}
              change={(next) => change({ sort: next })}
            />
          )}
        </div>
      )}
      <Pager query={query} label={searching ? `${number(searched)} rows searched: continue` : "Show more rows"} />
    </section>
  );
}

interface FiltersProps {
  columns: readonly Column[];
  filters: readonly string[];
  change: (filters: string[]) => void;
}

function Filters({ columns, filters, change }: FiltersProps) {
  const [column, setColumn] = useState(columns[0]?.name ?? "");
  const [operator, setOperator] = useState("eq");
  const [value, setValue] = useState("");
  const chosen = columns.find((each) => each.name === column);
  const isText = /char|text/.test(chosen?.type ?? "");
  const offered = Object.keys(OPERATORS).filter(
    (each) => (each !== "contains" || isText) && (each !== "is" || chosen?.nullable),
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    change([...filters, `${column}:${operator}:${operator === "is" ? value || "null" : value}`]);
    setValue("");
  };
  return (
    <form className="filters" onSubmit={submit}>
      <select
        aria-label="Column"
        value={column}
        onChange={(event) => {
          setColumn(event.target.value);
          setOperator("eq");
        }}
      >
        {columns.map((each) => (
          <option key={each.name}>{each.name}</option>
        ))}
      </select>
      <select aria-label="Operator" value={operator} onChange={(event) => setOperator(event.target.value)}>
        {offered.map((each) => (
          <option key={each} value={each}>
            {OPERATORS[each]}
          </option>
        ))}
      </select>
      {operator === "is" ? (
        <select aria-label="Value" value={value || "null"} onChange={(event) => setValue(event.target.value)}>
          <option value="null">null</option>
          <option value="value">not null</option>
        </select>
      ) : (
        <input
          data-search
          aria-label="Value"
          placeholder={chosen?.type}
          required
          value={value}
          onChange={(event) => setValue(event.target.value)}
        />
      )}
      <button type="submit" className="button">
        Add filter
      </button>
      <ul className="chips" aria-label="Filters">
        {filters.map((filter, at) => {
          const [name = "", sign = "", ...rest] = filter.split(":");
          const shown = `${name} ${OPERATORS[sign] ?? sign} ${rest.join(":")}`;
          return (
            <li key={`${filter}${at}`}>
              <button
                type="button"
                aria-label={`Remove the filter ${shown}`}
                onClick={() => change(filters.filter((_, other) => other !== at))}
              >
                <span className="mono">{shown}</span> <span aria-hidden="true">×</span>
              </button>
            </li>
          );
        })}
      </ul>
    </form>
  );
}

interface RowTableProps {
  title: string;
  columns: readonly Column[];
  rows: Row[];
  sort: string;
  change: (sort: string) => void;
}

function RowTable({ title, columns, rows, sort, change }: RowTableProps) {
  const descending = sort.startsWith("-");
  const sorted = sort.replace(/^-/, "");
  const shown = useMemo<ColumnDef<Row>[]>(
    () => [
      ...columns.map((column) => ({
        id: column.name,
        accessorFn: (row: Row) => row.values[column.name],
        cell: ({ row }: { row: { original: Row } }) => {
          const value = row.original.values[column.name] ?? null;
          return value === null ? <i className="muted">null</i> : String(value);
        },
      })),
      {
        id: "message",
        cell: ({ row }) => (
          <Link href={`/messages/${row.original.message_id}`} className="row-link mono">
            {row.original.message_id.slice(0, 8)}
          </Link>
        ),
      },
    ],
    [columns],
  );
  // eslint-disable-next-line react-hooks/incompatible-library -- the table is not passed to a memoized component
  const table = useReactTable({ data: rows, columns: shown, getCoreRowModel: getCoreRowModel() });
  const columnsByName = new Map(columns.map((column) => [column.name, column]));
  return (
    // Focusable, so that a wide table can be scrolled with the keyboard.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="table-wrap table-scroll" tabIndex={0} role="region" aria-label={`Rows of ${title}`}>
      <table className="table table-dense">
        <thead>
          <tr>
            {table.getLeafHeaders().map((header) => {
              const column = columnsByName.get(header.id);
              const isSorted = sorted === header.id;
              return (
                <th
                  key={header.id}
                  scope="col"
                  className={column?.numeric ? "numeric" : ""}
                  aria-sort={isSorted ? (descending ? "descending" : "ascending") : undefined}
                >
                  {column === undefined ? (
                    "message"
                  ) : column.sortable ? (
                    <button
                      type="button"
                      className="sort"
                      title={`Sort by ${column.name}`}
                      onClick={() => change(isSorted && !descending ? `-${column.name}` : column.name)}
                    >
                      {column.name}
                      {column.key && <abbr title="part of the primary key"> ⚷</abbr>}
                      <span aria-hidden="true">{isSorted ? (descending ? " ↓" : " ↑") : ""}</span>
                    </button>
                  ) : (
                    <span title="Not sortable: the table is large and this column has no index">{column.name}</span>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {table.getRowModel().rows.map((row) => (
            <tr key={row.id}>
              {row.getVisibleCells().map((cell) => (
                <td key={cell.id} className={columnsByName.get(cell.column.id)?.numeric ? "numeric" : ""}>
                  {flexRender(cell.column.columnDef.cell, cell.getContext())}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
