import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Snapshot = Schemas["Snapshot"];
export type Stats = Schemas["Stats"];
export type Point = Schemas["Point"];
export type Count = Schemas["Count"];
export type MessageSummary = Schemas["MessageSummary"];
export type MessageDetail = Schemas["MessageDetail"];
export type EntityRows = Schemas["EntityRows"];
export type EntitySummary = Schemas["EntitySummary"];
export type Column = Schemas["Column"];
export type Row = Schemas["Row"];
export type DeadLetter = Schemas["DeadLetter"];
export type DeadLetterDetail = Schemas["DeadLetterDetail"];
export type DeadLetterGroup = Schemas["DeadLetterGroup"];
export type Health = Schemas["Health"];
export type Status = MessageDetail["status"];

const TOKEN = "nomnom.token";

/** A request that failed with a problem response, or got no response (status 0). */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

export const token = {
  get: (): string | null => sessionStorage.getItem(TOKEN),
  set: (value: string): void => sessionStorage.setItem(TOKEN, value),
  clear: (): void => sessionStorage.removeItem(TOKEN),
};

/** The Authorization header of a request, if a token is set. */
export function authorization(): Record<string, string> {
  const value = token.get();
  return value === null ? {} : { Authorization: `Bearer ${value}` };
}

export const client = createClient<paths>({ baseUrl: window.location.origin });
client.use({
  onRequest({ request }) {
    for (const [name, value] of Object.entries(authorization())) request.headers.set(name, value);
  },
  onError() {
    return new ApiError(0, "Cannot reach the dashboard server. Check that it is running.");
  },
});

/** The body of a response; throws ApiError if the request failed. */
export async function body<T>(request: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await request;
  if (data !== undefined) return data;
  const detail = problemDetail(error);
  throw new ApiError(response.status, detail ?? `The server returned status ${response.status}.`);
}

/** The detail of a problem response (RFC 9457), or null if it is not one. */
export function problemDetail(problem: unknown): string | null {
  if (typeof problem === "object" && problem !== null && "detail" in problem && typeof problem.detail === "string") {
    return problem.detail;
  }
  return null;
}
