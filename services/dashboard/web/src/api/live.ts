import { EventSourceParserStream } from "eventsource-parser/stream";
import { useSyncExternalStore } from "react";
import { authorization, type Point, type Snapshot } from "./client";

export type Connection =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "lost"; since: number; retryAt: number; reason: string }
  | { state: "refused" };

export interface Live {
  connection: Connection;
  snapshot: Snapshot | null;
  /** Live samples of the last minutes, oldest first, one a second. */
  points: readonly Point[];
}

const KEPT_SECONDS = 300;
const SAMPLE_SECONDS = 0.95;
const SILENCE = 40_000;
const FIRST_RETRY = 1_000;
const LONGEST_RETRY = 15_000;

/** The event stream of the server, kept open, and the newest snapshot it sent. */
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

  /** Open the stream, or open it again at once. */
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
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(new Error("nothing was heard for a while")), SILENCE);
    };
    try {
      heard();
      const response = await fetch(this.#url, { headers: authorization(), signal: abort.signal, cache: "no-store" });
      if (response.status === 401) {
        this.#change({ connection: { state: "refused" } });
        return;
      }
      if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
      const events = response.body
        .pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
        .pipeThrough(new EventSourceParserStream({ onComment: heard }));
      const reader = events.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the server closed the stream");
        heard();
        if (value.event === "snapshot") this.#take(JSON.parse(value.data) as Snapshot);
      }
    } catch (error) {
      if (this.#abort === abort) this.#lose(error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(silence);
    }
  }

  #take(snapshot: Snapshot): void {
    this.#retry = FIRST_RETRY;
    // A chart of minutes shows one sample a second: with more it would be drawn more often, and look the same.
    const kept = this.#live.points;
    const from = snapshot.point.at - KEPT_SECONDS;
    const due = snapshot.point.at - (kept.at(-1)?.at ?? 0) >= SAMPLE_SECONDS;
    const points = due ? [...kept.filter((point) => point.at > from), snapshot.point] : kept;
    this.#change({ connection: { state: "live" }, snapshot, points });
  }

  #lose(reason: string): void {
    const before = this.#live.connection;
    const since = before.state === "lost" ? before.since : Date.now();
    this.#change({ connection: { state: "lost", since, retryAt: Date.now() + this.#retry, reason } });
    this.#timer = setTimeout(this.start, this.#retry);
    this.#retry = Math.min(this.#retry * 1.6, LONGEST_RETRY);
  }

  #change(part: Partial<Live>): void {
    this.#live = { ...this.#live, ...part };
    for (const listener of this.#listeners) listener();
  }
}

export const live = new LiveStream("/api/stream");

/** A part of the live state; the component is drawn again only when that part changes. */
export function useLive<T>(select: (live: Live) => T): T {
  return useSyncExternalStore(live.subscribe, () => select(live.read()));
}
