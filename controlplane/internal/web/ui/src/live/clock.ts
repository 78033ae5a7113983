// A clock for texts such as "12 s ago". All readers of one pace share a timer, which stops when nobody reads.

import { useSyncExternalStore } from "react";

class Clock {
  private now = Date.now();
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly listeners = new Set<() => void>();

  constructor(private readonly paceMs: number) {}

  readonly read = (): number => this.now;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    this.timer ??= setInterval(() => this.tick(), this.paceMs);
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      clearInterval(this.timer);
      this.timer = undefined;
    };
  };

  private tick(): void {
    this.now = Date.now();
    for (const listener of this.listeners) listener();
  }
}

const clock = new Clock(5000);

/** Milliseconds since the epoch, renewed every five seconds. */
export function useNow(): number {
  return useSyncExternalStore(clock.subscribe, clock.read);
}
