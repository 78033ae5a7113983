// From insights to what a plot draws: one line per key over a shared time axis.

/** What a series needs of an insight. */
export interface Point {
  /** Milliseconds since the epoch. */
  time: number;
  key: Record<string, unknown>;
  values: Record<string, unknown>;
}

/** Lines over one time axis, in the form that uPlot takes. */
export interface Series {
  /** Seconds since the epoch, rising. */
  times: number[];
  lines: Line[];
}

export interface Line {
  /** The key as text, "machine=M1"; "all" where insights have no key. */
  label: string;
  /** One per time: null breaks the line, undefined means that this key has nothing to say there. */
  values: (number | null | undefined)[];
}

/** The name of a line. A single-member key is named by its value alone, because the member is the same for all. */
export function keyLabel(key: Record<string, unknown>): string {
  const entries = Object.entries(key).sort(([a], [b]) => (a < b ? -1 : 1));
  const [only] = entries;
  if (!only) return "all";
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  if (entries.length === 1) return text(only[1]);
  return entries.map(([name, value]) => `${name}=${text(value)}`).join(", ");
}

/** The value names that hold a number in any of the points, sorted. */
export function numericNames(points: readonly Point[]): string[] {
  const names = new Set<string>();
  for (const point of points) {
    for (const [name, value] of Object.entries(point.values)) {
      if (typeof value === "number") names.add(name);
    }
  }
  return [...names].sort();
}

const natural = new Intl.Collator("en", { numeric: true });

/**
 * Builds the lines of one value within [from, to] milliseconds. A line breaks where its key said nothing for more than
 * three of its usual intervals, so that an outage looks like one; a null value breaks it too.
 */
export function buildSeries(points: readonly Point[], value: string, from: number, to: number): Series {
  const byKey = new Map<string, Map<number, number | null>>();
  for (const point of points) {
    if (point.time < from || point.time > to || !(value in point.values)) continue;
    const raw = point.values[value];
    if (raw !== null && typeof raw !== "number") continue;
    const label = keyLabel(point.key);
    const line = byKey.get(label) ?? new Map<number, number | null>();
    line.set(point.time, raw);
    byKey.set(label, line);
  }
  for (const line of byKey.values()) breakAtGaps(line);
  const times = [...new Set([...byKey.values()].flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  const lines = [...byKey.entries()]
    .sort(([a], [b]) => natural.compare(a, b))
    .map(([label, line]) => ({ label, values: times.map((time) => line.get(time)) }));
  return { times: times.map((ms) => ms / 1000), lines };
}

function breakAtGaps(line: Map<number, number | null>): void {
  const times = [...line.keys()].sort((a, b) => a - b);
  const steps = times.slice(1).map((time, i) => time - (times[i] ?? time));
  const usual = [...steps].sort((a, b) => a - b)[Math.floor(steps.length / 2)];
  if (usual === undefined || steps.length < 3) return;
  steps.forEach((step, i) => {
    const before = times[i];
    if (step > 3 * usual && before !== undefined) line.set(before + usual, null);
  });
}

/** The newest value of a line, or undefined. */
export function lastValue(line: Line): number | undefined {
  for (let i = line.values.length - 1; i >= 0; i -= 1) {
    const value = line.values[i];
    if (typeof value === "number") return value;
  }
  return undefined;
}

/** Labels of a time axis: hours and minutes, seconds where ticks are that close, and the date at each midnight. */
export function timeLabels(seconds: readonly number[], incrementSeconds: number): string[] {
  const two = (n: number) => String(n).padStart(2, "0");
  let day = "";
  return seconds.map((s, i) => {
    const at = new Date(s * 1000);
    const time = `${two(at.getHours())}:${two(at.getMinutes())}${incrementSeconds < 60 ? `:${two(at.getSeconds())}` : ""}`;
    const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const turned = i > 0 && date !== day;
    day = date;
    return turned ? `${time}\n${date}` : time;
  });
}

/** How many of the times fall into each of the last `minutes` whole minutes before now, oldest first. */
export function perMinute(times: readonly number[], now: number, minutes: number): number[] {
  const end = Math.floor(now / 60_000) * 60_000;
  const counts = new Array<number>(minutes).fill(0);
  for (const time of times) {
    const i = minutes - 1 - Math.floor((end - 1 - time) / 60_000);
    if (time < end && i >= 0 && i < minutes) counts[i] = (counts[i] ?? 0) + 1;
  }
  return counts;
}
