// One stream of server-sent events that mends itself. A browser's EventSource gives up after an HTTP error such as the
// 502 of a restarting proxy; this one comes back, with growing pauses, until it is closed.

export type LiveState = "connecting" | "live" | "reconnecting";

/** What the stream needs of an EventSource. */
export interface Source {
  onopen: (() => void) | null;
  onerror: (() => void) | null;
  addEventListener(kind: string, listener: (event: { data: string }) => void): void;
  close(): void;
}

/** What the stream needs of the world; tests bring their own. */
export interface World {
  open(url: string): Source;
  /** Calls back once after ms; gives a function that takes it back. */
  after(ms: number, then: () => void): () => void;
  /** A number in [0, 1). */
  random(): number;
}

export interface Listener {
  event(kind: string, data: unknown): void;
  /** `again` is true for every live after the first: whatever happened in between was missed. */
  state(state: LiveState, again: boolean): void;
}

const firstPauseMs = 1000;
const longestPauseMs = 30_000;

/** The pause before a try, counted from 0: full jitter below a doubling bound, never under a quarter of a second. */
export function pauseMs(attempt: number, random: number): number {
  const bound = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(attempt, 16));
  return Math.max(250, Math.floor(bound * random));
}

/** Opens the stream and keeps it open until the returned object is closed. */
export class LiveStream {
  private source: Source | undefined;
  private cancelRetry: (() => void) | undefined;
  private attempt = 0;
  private wasLive = false;
  private closed = false;

  constructor(
    private readonly url: string,
    private readonly kinds: readonly string[],
    private readonly listener: Listener,
    private readonly world: World,
  ) {
    listener.state("connecting", false);
    this.connect();
  }

  /** Tries at once instead of waiting out the pause; for when the network is back. */
  retryNow(): void {
    if (this.closed || !this.cancelRetry) return;
    this.cancelRetry();
    this.cancelRetry = undefined;
    this.connect();
  }

  close(): void {
    this.closed = true;
    this.cancelRetry?.();
    this.cancelRetry = undefined;
    this.source?.close();
    this.source = undefined;
  }

  private connect(): void {
    const source = this.world.open(this.url);
    this.source = source;
    source.onopen = () => {
      if (this.source !== source) return;
      this.attempt = 0;
      this.listener.state("live", this.wasLive);
      this.wasLive = true;
    };
    source.onerror = () => {
      if (this.source === source) this.retryLater();
    };
    for (const kind of this.kinds) {
      source.addEventListener(kind, (event) => {
        if (this.source === source) this.deliver(kind, event.data);
      });
    }
  }

  private deliver(kind: string, text: string): void {
    let data: unknown;
    try {
      data = JSON.parse(text);
    } catch {
      // A cut-off event says that something happened without saying what: the listener hears of it all the same.
      data = undefined;
    }
    this.listener.event(kind, data);
  }

  private retryLater(): void {
    this.source?.close();
    this.source = undefined;
    this.listener.state("reconnecting", false);
    this.cancelRetry = this.world.after(pauseMs(this.attempt, this.world.random()), () => {
      this.cancelRetry = undefined;
      this.connect();
    });
    this.attempt += 1;
  }
}

/** The browser. */
export const browser: World = {
  open: (url) => new EventSource(url) as unknown as Source,
  after: (ms, then) => {
    const timer = setTimeout(then, ms);
    return () => clearTimeout(timer);
  },
  random: Math.random,
};
