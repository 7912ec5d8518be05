import { EventSourceParserStream } from "eventsource-parser/stream";
import { useSyncExternalStore } from "react";
import { authorization, type Point, type Snapshot } from "./client";

export type Connection =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "lost"; since: number; retryAt: number; reason: string }
  | { state: "unauthorized" };

export interface Live {
  connection: Connection;
  snapshot: Snapshot | null;
  /** Live samples of the last five minutes, oldest first, one per second. */
  points: readonly Point[];
}

const WINDOW_SECONDS = 300;
const SAMPLE_SECONDS = 0.95;
const SILENCE_TIMEOUT = 40_000;
const FIRST_RETRY = 1_000;
const MAX_RETRY = 15_000;

/** The server's event stream, reopened when it is lost, and the newest snapshot received. */
export class LiveStream {
  #live: Live = { connection: { state: "connecting" }, snapshot: null, points: [] };
  #listeners = new Set<() => void>();
  #abort: AbortController | null = null;
  #retry = FIRST_RETRY;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  read = (): Live => this.#live;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Open the stream, or reopen it immediately. */
  start = (): void => {
    this.stop();
    this.#abort = new AbortController();
    void this.#run(this.#abort);
  };

  stop = (): void => {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  };

  async #run(abort: AbortController): Promise<void> {
    let silence: ReturnType<typeof setTimeout> | undefined;
    const received = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(new Error(`no data received for ${SILENCE_TIMEOUT / 1000} s`)), SILENCE_TIMEOUT);
    };
    try {
      received();
      const response = await fetch(this.#url, { headers: authorization(), signal: abort.signal, cache: "no-store" });
      if (response.status === 401) {
        this.#change({ connection: { state: "unauthorized" } });
        return;
      }
      if (!response.ok || response.body === null) throw new Error(`the server returned status ${response.status}`);
      const events = response.body
        .pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
        .pipeThrough(new EventSourceParserStream({ onComment: received }));
      const reader = events.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the server closed the stream");
        received();
        if (value.event === "snapshot") this.#store(JSON.parse(value.data) as Snapshot);
      }
    } catch (error) {
      if (this.#abort === abort) this.#reconnect(error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(silence);
    }
  }

  #store(snapshot: Snapshot): void {
    this.#retry = FIRST_RETRY;
    // One sample per second suffices for a chart of minutes; more would only redraw it more often.
    const kept = this.#live.points;
    const from = snapshot.point.at - WINDOW_SECONDS;
    const due = snapshot.point.at - (kept.at(-1)?.at ?? 0) >= SAMPLE_SECONDS;
    const points = due ? [...kept.filter((point) => point.at > from), snapshot.point] : kept;
    this.#change({ connection: { state: "live" }, snapshot, points });
  }

  #reconnect(reason: string): void {
    const before = this.#live.connection;
    const since = before.state === "lost" ? before.since : Date.now();
    this.#change({ connection: { state: "lost", since, retryAt: Date.now() + this.#retry, reason } });
    this.#timer = setTimeout(this.start, this.#retry);
    this.#retry = Math.min(this.#retry * 1.6, MAX_RETRY);
  }

  #change(part: Partial<Live>): void {
    this.#live = { ...this.#live, ...part };
    for (const listener of this.#listeners) listener();
  }
}

export const live = new LiveStream("/api/stream");

/** A part of the live state; the component renders again only when that part changes. */
export function useLive<T>(select: (live: Live) => T): T {
  return useSyncExternalStore(live.subscribe, () => select(live.read()));
}
