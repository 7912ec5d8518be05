import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LiveStream } from "./live";

const encoder = new TextEncoder();

function snapshot(sequence: number, at: number): string {
  return `event: snapshot\nid: ${sequence}\ndata: ${JSON.stringify({ sequence, point: { at } })}\n\n`;
}

/** A fake server; the test writes to its event streams. */
function server() {
  const streams: ReadableStreamDefaultController<Uint8Array>[] = [];
  const statuses: number[] = [];
  vi.stubGlobal("fetch", (_: string, { signal }: RequestInit) => {
    const status = statuses.shift() ?? 200;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        streams.push(controller);
        signal?.addEventListener("abort", () => controller.error(signal.reason));
      },
    });
    return Promise.resolve(new Response(status === 200 ? body : null, { status }));
  });
  return { streams, statuses, send: (text: string) => streams.at(-1)?.enqueue(encoder.encode(text)) };
}

let stream: LiveStream;
beforeEach(() => {
  vi.useFakeTimers();
  stream = new LiveStream("/api/stream");
});
afterEach(() => {
  stream.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("parses snapshots that arrive in fragments", async () => {
  const { send } = server();
  stream.start();
  await vi.advanceTimersByTimeAsync(0);
  const text = `retry: 2000\n\n${snapshot(1, 100)}${snapshot(2, 101)}`;
  send(text.slice(0, 40));
  await vi.advanceTimersByTimeAsync(0);
  expect(stream.read().snapshot).toBeNull();
  send(text.slice(40));
  await vi.waitFor(() => expect(stream.read().snapshot?.sequence).toBe(2));
  expect(stream.read().connection).toEqual({ state: "live" });
  expect(stream.read().points.map((point) => point.at)).toEqual([100, 101]);
});

it("keeps one sample per second, however often snapshots arrive", async () => {
  const { send } = server();
  stream.start();
  await vi.advanceTimersByTimeAsync(0);
  send(Array.from({ length: 31 }, (_, at) => snapshot(at, 100 + at / 10)).join(""));
  await vi.waitFor(() => expect(stream.read().snapshot?.sequence).toBe(30));
  expect(stream.read().points.map((point) => point.at)).toEqual([100, 101, 102, 103]);
});

it("keeps five minutes of samples", async () => {
  const { send } = server();
  stream.start();
  await vi.advanceTimersByTimeAsync(0);
  send([0, 100, 299, 350].map((at, sequence) => snapshot(sequence, at)).join(""));
  await vi.waitFor(() => expect(stream.read().points.map((point) => point.at)).toEqual([100, 299, 350]));
});

it("reports since when the connection is lost, and reconnects by itself", async () => {
  const { streams, statuses, send } = server();
  stream.start();
  await vi.advanceTimersByTimeAsync(0);
  send(snapshot(1, 100));
  await vi.waitFor(() => expect(stream.read().connection.state).toBe("live"));
  statuses.push(503);
  streams.at(-1)?.close();
  await vi.waitFor(() => expect(stream.read().connection.state).toBe("lost"));
  const lost = stream.read().connection;
  expect(stream.read().snapshot?.sequence).toBe(1);
  await vi.advanceTimersByTimeAsync(1_000);
  const again = stream.read().connection;
  if (lost.state !== "lost" || again.state !== "lost") throw new Error("not lost");
  expect(again.since).toBe(lost.since);
  expect(again.reason).toContain("503");
  expect(again.retryAt - Date.now()).toBeGreaterThan(1_000);
  await vi.advanceTimersByTimeAsync(2_000);
  send(snapshot(5, 110));
  await vi.waitFor(() => expect(stream.read().connection.state).toBe("live"));
});

it("treats silence as a lost connection", async () => {
  const { send } = server();
  stream.start();
  await vi.advanceTimersByTimeAsync(0);
  send(": alive\n\n");
  await vi.advanceTimersByTimeAsync(41_000);
  expect(stream.read().connection.state).not.toBe("live");
});

it("asks for a token instead of retrying", async () => {
  const { statuses, streams } = server();
  statuses.push(401);
  stream.start();
  await vi.waitFor(() => expect(stream.read().connection.state).toBe("unauthorized"));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(streams).toHaveLength(1);
});
