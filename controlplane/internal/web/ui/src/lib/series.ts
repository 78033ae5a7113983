// From insights to what a plot draws: one line per key over a shared time axis.

import { members } from "./format";

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
  /** The members of the key that tell the lines apart, sorted. */
  named: string[];
  /** The members of the key that differ from record to record: records that differ only in them share a line. */
  folded: string[];
  /** How many more lines there are than can be told apart. */
  omitted: number;
}

export interface Line {
  /** The key's values as text, "M1 · WO-7"; "all" where insights have no key. */
  label: string;
  /** One per time: null breaks the line, undefined means that this key has nothing to say there. */
  values: (number | null | undefined)[];
  /** One per time where members were folded: which record it is, as "part_id=7". */
  records?: (string | undefined)[];
}

/** The name of a line: its key's values, in the order of their names, because the names are the same for all lines. */
export function keyLabel(key: Record<string, unknown>): string {
  const entries = Object.entries(key).sort(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length === 0) return "all";
  return entries.map(([, value]) => (typeof value === "string" ? value : JSON.stringify(value))).join(" · ");
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

/** More lines than this nobody can tell apart. */
const mostLines = 60;

/** A point that a line can have; its value is null where the line breaks. */
interface Sample {
  time: number;
  key: Record<string, unknown>;
  value: number | null;
}

interface Drawn {
  values: Map<number, number | null>;
  records: Map<number, string>;
}

/**
 * Builds the lines of one value within [from, to] milliseconds. A line breaks where its key said nothing for more than
 * three of its usual intervals, so that an outage looks like one; a null value breaks it too. Where keys hardly repeat,
 * such as the number of a part, the records that differ only in them are one line.
 */
export function buildSeries(points: readonly Point[], value: string, from: number, to: number): Series {
  const samples: Sample[] = [];
  for (const { time, key, values } of points) {
    const raw = values[value];
    if (time >= from && time <= to && (raw === null || typeof raw === "number"))
      samples.push({ time, key, value: raw });
  }
  const folded = passingMembers(samples);
  const byKey = group(samples, folded);
  const shown = [...byKey].sort(([a], [b]) => natural.compare(a, b)).slice(0, mostLines);
  const gaps = new Map(shown.map(([label, { values }]) => [label, breakAtGaps(values)]));
  const times = [...new Set(shown.flatMap(([, { values }]) => [...values.keys()]))].sort((a, b) => a - b);
  const lines = shown.map(([label, { values, records }]): Line => {
    const line: Line = { label, values: lineValues(times, values, gaps.get(label) ?? []) };
    if (folded.length > 0) line.records = times.map((time) => records.get(time));
    return line;
  });
  const named = [...new Set(samples.flatMap(({ key }) => Object.keys(without(key, folded))))].sort();
  return { times: times.map((ms) => ms / 1000), lines, named, folded, omitted: byKey.size - shown.length };
}

function group(samples: readonly Sample[], folded: readonly string[]): Map<string, Drawn> {
  const byKey = new Map<string, Drawn>();
  for (const { time, key, value } of samples) {
    const label = keyLabel(without(key, folded));
    const line = byKey.get(label) ?? { values: new Map(), records: new Map() };
    byKey.set(label, line);
    if (folded.length === 0) {
      line.values.set(time, value);
      continue;
    }
    // Records of one moment stand beside one another, a microsecond apart: a time has one place in a line.
    let at = time;
    while (line.values.has(at)) at += 0.001;
    line.values.set(at, value);
    line.records.set(at, members(only(key, folded)));
  }
  return byKey;
}

const without = (key: Record<string, unknown>, names: readonly string[]) =>
  Object.fromEntries(Object.entries(key).filter(([name]) => !names.includes(name)));

const only = (key: Record<string, unknown>, names: readonly string[]) =>
  Object.fromEntries(Object.entries(key).filter(([name]) => names.includes(name)));

/** With fewer moments than this, nobody can know whether a key will come again. */
const fewestTimes = 5;
/** Keys that are seen for less than this share of the time, on average, come and go. */
const shortLife = 0.2;

/**
 * The members of the key without which the other keys last: the number of each part, the order that a machine works on.
 * None while keys last as they are.
 */
function passingMembers(samples: readonly Sample[]): string[] {
  if (new Set(samples.map(({ time }) => time)).size < fewestTimes) return [];
  const folded: string[] = [];
  const left = new Set(samples.flatMap(({ key }) => Object.keys(key)));
  while (left.size > 0 && life(samples, (key) => keyLabel(without(key, folded))) < shortLife) {
    const lives = [...left].map((name) => ({ name, life: life(samples, (key) => JSON.stringify(key[name])) }));
    lives.sort((a, b) => a.life - b.life || natural.compare(a.name, b.name));
    const [shortest] = lives;
    if (!shortest) break;
    folded.push(shortest.name);
    left.delete(shortest.name);
  }
  return folded;
}

/** For how much of the time between the first and the last record a key is seen, on average: from 0 to 1. */
function life(samples: readonly Sample[], keyOf: (key: Record<string, unknown>) => string | undefined): number {
  const spans = new Map<string | undefined, { first: number; last: number }>();
  let [first, last] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const { time, key } of samples) {
    const name = keyOf(key);
    const span = spans.get(name);
    if (!span) spans.set(name, { first: time, last: time });
    else {
      span.first = Math.min(span.first, time);
      span.last = Math.max(span.last, time);
    }
    first = Math.min(first, time);
    last = Math.max(last, time);
  }
  if (last <= first) return 1;
  const sum = [...spans.values()].reduce((total, span) => total + span.last - span.first, 0);
  return sum / spans.size / (last - first);
}

interface Gap {
  after: number;
  before: number;
}

function lineValues(times: number[], line: Map<number, number | null>, gaps: Gap[]): Line["values"] {
  const silent = (time: number) => gaps.some(({ after, before }) => time > after && time < before);
  return times.map((time) => line.get(time) ?? (line.has(time) || silent(time) ? null : undefined));
}

/** Finds the gaps of a line and puts a null into each, so that there is one even where no other line has a time. */
function breakAtGaps(line: Map<number, number | null>): Gap[] {
  const times = [...line.keys()].sort((a, b) => a - b);
  const steps = times.slice(1).map((time, i) => time - (times[i] ?? time));
  // Less than a millisecond is between records of one moment.
  const usual = steps.filter((step) => step >= 1).sort((a, b) => a - b);
  const median = usual[Math.floor(usual.length / 2)];
  if (median === undefined || usual.length < 3) return [];
  const gaps = steps.flatMap((step, i) => {
    const after = times[i];
    return step > 3 * median && after !== undefined ? [{ after, before: after + step }] : [];
  });
  for (const gap of gaps) line.set(gap.after + median, null);
  return gaps;
}

/** The places of values that no line leads to or from: they are drawn as dots, or nobody would see them. */
export function isolatedPoints(values: Line["values"]): number[] {
  const said = values.flatMap((value, i) => (value === undefined ? [] : [{ i, isNumber: value !== null }]));
  return said
    .filter(({ isNumber }, at) => isNumber && !said[at - 1]?.isNumber && !said[at + 1]?.isNumber)
    .map(({ i }) => i);
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
    const turned = i > 0 ? date !== day : time.startsWith("00:00");
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
