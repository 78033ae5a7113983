import { describe, expect, it } from "vitest";
import { type LiveState, LiveStream, pauseMs, type Source, type World } from "./stream";

class FakeSource implements Source {
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  closed = false;
  private readonly listeners = new Map<string, (event: { data: string }) => void>();
  addEventListener(kind: string, listener: (event: { data: string }) => void): void {
    this.listeners.set(kind, listener);
  }
  close(): void {
    this.closed = true;
  }
  send(kind: string, data: string): void {
    this.listeners.get(kind)?.({ data });
  }
}

function setup() {
  const sources: FakeSource[] = [];
  const timers: { ms: number; then: () => void; cancelled: boolean }[] = [];
  const states: [LiveState, boolean][] = [];
  const events: [string, unknown][] = [];
  const world: World = {
    open: () => {
      const source = new FakeSource();
      sources.push(source);
      return source;
    },
    after: (ms, then) => {
      const timer = { ms, then, cancelled: false };
      timers.push(timer);
      return () => {
        timer.cancelled = true;
      };
    },
    random: () => 0.999,
  };
  const stream = new LiveStream(
    "/events",
    ["run", "insights"],
    { event: (kind, data) => events.push([kind, data]), state: (state, again) => states.push([state, again]) },
    world,
  );
  const last = () => sources[sources.length - 1] as FakeSource;
  const fire = () => timers[timers.length - 1]?.then();
  return { stream, sources, timers, states, events, last, fire };
}

describe("LiveStream", () => {
  it("delivers the events of its kinds", () => {
    const t = setup();
    t.last().onopen?.();
    t.last().send("run", '{"id":"r1"}');
    t.last().send("other", '{"id":"x"}');
    t.last().send("insights", '{"cut');
    expect(t.events).toEqual([
      ["run", { id: "r1" }],
      ["insights", undefined],
    ]);
    expect(t.states).toEqual([
      ["connecting", false],
      ["live", false],
    ]);
  });

  it("comes back after an error and says that something was missed", () => {
    const t = setup();
    t.last().onopen?.();
    t.last().onerror?.();
    expect(t.sources[0]?.closed).toBe(true);
    expect(t.states.at(-1)).toEqual(["reconnecting", false]);
    t.fire();
    expect(t.sources).toHaveLength(2);
    t.last().onopen?.();
    expect(t.states.at(-1)).toEqual(["live", true]);
    t.last().send("run", "{}");
    expect(t.events).toHaveLength(1);
  });

  it("waits longer after each failure, up to half a minute, and starts over once it was live", () => {
    const t = setup();
    for (let i = 0; i < 8; i += 1) {
      t.last().onerror?.();
      t.fire();
    }
    expect(t.timers.map((timer) => timer.ms)).toEqual([999, 1998, 3996, 7992, 15984, 29970, 29970, 29970]);
    t.last().onopen?.();
    t.last().onerror?.();
    expect(t.timers.at(-1)?.ms).toBe(999);
  });

  it("tries at once when asked, and only when it is waiting", () => {
    const t = setup();
    t.stream.retryNow();
    expect(t.sources).toHaveLength(1);
    t.last().onerror?.();
    t.stream.retryNow();
    expect(t.timers[0]?.cancelled).toBe(true);
    expect(t.sources).toHaveLength(2);
  });

  it("is quiet once it is closed", () => {
    const t = setup();
    t.last().onopen?.();
    t.stream.close();
    t.last().send("run", "{}");
    t.last().onerror?.();
    t.stream.retryNow();
    expect(t.sources).toHaveLength(1);
    expect(t.sources[0]?.closed).toBe(true);
    expect(t.events).toHaveLength(0);
    expect(t.timers).toHaveLength(0);
  });

  it("never hammers", () => {
    expect(pauseMs(0, 0)).toBe(250);
    expect(pauseMs(1000, 0.5)).toBe(15_000);
  });
});
