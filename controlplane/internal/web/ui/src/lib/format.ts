// Text for people: times in their zone, sizes, counts. Pure functions; `now` is always given.

const zero = Date.parse("0001-01-01T00:00:00Z");

/** Reads an RFC 3339 time; undefined for what is empty, unreadable, or the zero time that stands for "never". */
export function parseTime(text: string | null | undefined): Date | undefined {
  if (!text) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) || ms <= zero ? undefined : new Date(ms);
}

/** Whether a text is an RFC 3339 time, as insights carry their window's bounds. */
export function isTime(text: string): boolean {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(text);
}

const dateTime = new Intl.DateTimeFormat("en-GB", {
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

const timeOnly = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function parts(format: Intl.DateTimeFormat, at: Date): Record<string, string> {
  return Object.fromEntries(format.formatToParts(at).map((part) => [part.type, part.value]));
}

/** The viewer's own wall clock, "2026-03-01 14:05:09". */
export function localDateTime(at: Date): string {
  const p = parts(dateTime, at);
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}`;
}

/** "14:05:09" when it is of the same day as now, otherwise with the date. */
export function localTime(at: Date, now: Date): string {
  return at.toDateString() === now.toDateString() ? timeOnly.format(at) : localDateTime(at);
}

/** "2026-03-01 13:05:09 UTC", for tooltips. */
export function utcDateTime(at: Date): string {
  return `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** "just now", "12 s ago", "3 min ago", "5 h ago", "2 d ago"; "in 12 s" for what is ahead. */
export function relativeTime(at: Date, now: Date): string {
  const seconds = Math.round((now.getTime() - at.getTime()) / 1000);
  if (Math.abs(seconds) < 3) return "just now";
  const text = duration(Math.abs(seconds) * 1000);
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

/** A length of time in its largest sensible unit: "850 ms", "12 s", "3 min", "5 h", "2 d". Seconds are rounded. */
export function duration(length: number): string {
  if (length < 999.5) return `${Math.max(0, Math.round(length))} ms`;
  const ms = Math.round(length / 1000) * 1000;
  const steps: [number, string][] = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1000, "s"],
  ];
  for (const [size, unit] of steps) {
    if (ms >= size) return `${Math.floor(ms / size)} ${unit}`;
  }
  return "0 s";
}

/** A span of seconds in its two largest units: "3 days and 4 h", "12 min", "40 s"; "more than a year" for what is longer. */
export function span(seconds: number): string {
  const units: [size: number, one: string, many: string][] = [
    [86_400, "day", "days"],
    [3600, "h", "h"],
    [60, "min", "min"],
    [1, "s", "s"],
  ];
  if (seconds > 365 * 86_400) return "more than a year";
  const first = units.findIndex(([size]) => seconds >= size);
  const shown = first < 0 ? units.slice(-1) : units.slice(first, first + 2);
  let rest = Math.floor(Math.max(0, seconds));
  const texts = shown.map(([size, one, many]) => {
    const n = Math.floor(rest / size);
    rest -= n * size;
    return n === 0 ? "" : `${n} ${n === 1 ? one : many}`;
  });
  return texts.filter(Boolean).join(" and ") || "0 s";
}

const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A whole number with thin groups: 12 345. */
export function count(n: number | undefined): string {
  return n === undefined ? "–" : integers.format(n).replaceAll(",", "\u202f");
}

/** A size in decimal units: "512 B", "1.2 kB", "64 MB". */
export function bytes(n: number | undefined): string {
  if (n === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = n;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** A measured value: whole numbers as they are, others with four significant digits or so, never in surprise. */
export function measure(value: number): string {
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? count(value) : value.toExponential(3);
  const magnitude = Math.abs(value);
  if (magnitude >= 1e9 || magnitude < 1e-4) return value.toExponential(3);
  const digits = value.toFixed(Math.min(6, Math.max(1, 3 - Math.floor(Math.log10(magnitude)))));
  return digits.replace(/\.?0+$/, "");
}

/** How to write the numbers of one column, so that their decimal points stand below one another. */
export function columnMeasure(values: readonly unknown[]): (value: number) => string {
  const texts = values.filter((value) => typeof value === "number").map((value) => measure(value));
  if (texts.some((text) => text.includes("e"))) return measure;
  const decimals = Math.max(0, ...texts.map((text) => text.split(".")[1]?.length ?? 0));
  if (decimals === 0) return measure;
  return (value) => (value === 0 || Math.abs(value) >= 1000 ? measure(value) : value.toFixed(decimals));
}

/** Any JSON value on one line; a string as itself. */
export function jsonValue(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return measure(value);
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/** An object's members as "a=1, b=x", in the order of their names. */
export function members(object: Record<string, unknown> | null | undefined): string {
  return Object.entries(object ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}

/** "1 agent", "2 agents". */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Splits "site=berlin, line=2" into labels. What is wrong is said in the error, for a person. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const at = part.indexOf("=");
    if (at < 1 || at === part.length - 1) {
      throw new Error(`"${part}" is not a label. Write labels like site=berlin, with spaces or commas between them.`);
    }
    labels[part.slice(0, at)] = part.slice(at + 1);
  }
  return labels;
}
