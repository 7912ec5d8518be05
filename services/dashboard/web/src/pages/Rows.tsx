import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { type ColumnDef, flexRender, getCoreRowModel, useReactTable } from "@tanstack/react-table";
import { type SyntheticEvent, useMemo, useState } from "react";
import { Link } from "wouter";
import { body, client, type Column, type Row } from "../api/client";
import { bytes, count, number } from "../format";
import { Pager } from "../parts/Pager";
import { Empty, Failure, Loading } from "../parts/states";
import { useAddress } from "../parts/useAddress";

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

/** Rows of one entity, made from its schema: sorted, filtered, read page by page. */
export function Rows({ name }: { name: string }) {
  const [address, change] = useAddress();
  const sort = address.get("sort") ?? undefined;
  const filters = useMemo(() => address.get("filter")?.split("\n") ?? [], [address]);
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
      <p className="crumbs">
        <Link href="/entities">Entities</Link> <span aria-hidden="true">/</span> {name}
      </p>
      <header className="panel-head">
        <h1>{first?.entity.title ?? name}</h1>
        {first !== undefined && (
          <span className="quiet">
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
        <Loading rows={12} />
      ) : query.isError && rows.length === 0 ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : (
        <div className={query.isPlaceholderData ? "waiting" : ""}>
          {rows.length === 0 ? (
            <Empty title={filters.length > 0 ? "No row matches so far" : "No rows yet"}>
              {searched > 0 ? `${number(searched)} rows were searched.` : "What workers write shows here."}
            </Empty>
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
      <Pager query={query} label={searching ? `${number(searched)} rows searched: go on` : "Show more rows"} />
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
  const textual = /char|text/.test(chosen?.type ?? "");
  const offered = Object.keys(OPERATORS).filter(
    (each) => (each !== "contains" || textual) && (each !== "is" || chosen?.nullable),
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
          <option value="null">empty</option>
          <option value="value">filled</option>
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
          return value === null ? <i className="quiet">null</i> : String(value);
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
  // eslint-disable-next-line react-hooks/incompatible-library -- nothing of the table is passed to a memoized component
  const table = useReactTable({ data: rows, columns: shown, getCoreRowModel: getCoreRowModel() });
  const about = new Map(columns.map((column) => [column.name, column]));
  return (
    // A wide table scrolls by itself; it can be reached, and scrolled, from the keyboard.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="table-wrap table-scroll" tabIndex={0} role="region" aria-label={`Rows of ${title}`}>
      <table className="table table-dense">
        <thead>
          <tr>
            {table.getLeafHeaders().map((header) => {
              const column = about.get(header.id);
              const here = sorted === header.id;
              return (
                <th
                  key={header.id}
                  scope="col"
                  className={column?.numeric ? "numeric" : ""}
                  aria-sort={here ? (descending ? "descending" : "ascending") : undefined}
                >
                  {column === undefined ? (
                    "written by"
                  ) : column.sortable ? (
                    <button
                      type="button"
                      className="sort"
                      title={`Sort by ${column.name}`}
                      onClick={() => change(here && !descending ? `-${column.name}` : column.name)}
                    >
                      {column.name}
                      {column.key && <abbr title="part of the key"> ⚷</abbr>}
                      <span aria-hidden="true">{here ? (descending ? " ↓" : " ↑") : ""}</span>
                    </button>
                  ) : (
                    <span title="No index, and the table is too large to be sorted by it">{column.name}</span>
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
                <td key={cell.id} className={about.get(cell.column.id)?.numeric ? "numeric" : ""}>
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
