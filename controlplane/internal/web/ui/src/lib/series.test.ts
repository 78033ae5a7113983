import { describe, expect, it } from "vitest";
import {
  buildSeries,
  isolatedPoints,
  keyLabel,
  lastValue,
  numericNames,
  type Point,
  perMinute,
  timeLabels,
} from "./series";

const minute = 60_000;
const point = (time: number, machine: string, values: Record<string, unknown>): Point => ({
  time,
  key: { machine },
  values,
});

describe("buildSeries", () => {
  it("draws one line per key over the union of their times, named in natural order", () => {
    const series = buildSeries(
      [
        point(2 * minute, "M10", { n: 4 }),
        point(0, "M2", { n: 1 }),
        point(minute, "M10", { n: 3 }),
        point(minute, "M2", { n: 2 }),
      ],
      "n",
      0,
      10 * minute,
    );
    expect(series.times).toEqual([0, 60, 120]);
    expect(series.lines).toEqual([
      { label: "M2", values: [1, 2, undefined] },
      { label: "M10", values: [undefined, 3, 4] },
    ]);
  });

  it("leaves out what is outside the range, of another name, or no number", () => {
    const series = buildSeries(
      [
        point(-1, "M1", { n: 1 }),
        point(5, "M1", { n: 2 }),
        point(11, "M1", { n: 3 }),
        point(6, "M1", { other: 3 }),
        point(7, "M1", { n: "x" }),
      ],
      "n",
      0,
      10,
    );
    expect(series).toEqual({
      times: [0.005],
      lines: [{ label: "M1", values: [2] }],
      named: ["machine"],
      folded: [],
      omitted: 0,
    });
  });

  it("breaks a line where a null stands and where its key fell silent", () => {
    const times = [0, 1, 2, 3, 10, 11];
    const series = buildSeries(
      times.map((m) => point(m * minute, "M1", { n: m === 11 ? null : m })),
      "n",
      0,
      20 * minute,
    );
    expect(series.times).toEqual([0, 60, 120, 180, 240, 600, 660]);
    expect(series.lines[0]?.values).toEqual([0, 1, 2, 3, null, 10, null]);
  });

  it("keeps a line broken over all of a gap in which others go on", () => {
    const series = buildSeries(
      [
        ...[0, 1, 2, 3, 8, 9].map((m) => point(m * minute, "M1", { n: m })),
        ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((m) => point(m * minute, "M2", { n: m })),
      ],
      "n",
      0,
      20 * minute,
    );
    expect(series.lines[0]?.values).toEqual([0, 1, 2, 3, null, null, null, null, 8, 9]);
  });

  it("takes the newer of two insights of the same key and time, and nothing from nothing", () => {
    expect(buildSeries([point(1, "M1", { n: 1 }), point(1, "M1", { n: 2 })], "n", 0, 9).lines[0]?.values).toEqual([2]);
    expect(buildSeries([], "n", 0, 9)).toEqual({ times: [], lines: [], named: [], folded: [], omitted: 0 });
  });
});

describe("keys that hardly repeat", () => {
  const part = (time: number, part_id: string, n: number | null, more: Record<string, unknown> = {}): Point => ({
    time,
    key: { part_id, ...more },
    values: { n },
  });
  const six = [0, 1, 2, 3, 4, 5];

  it("are one line over time, and each point says which record it is", () => {
    const series = buildSeries(
      six.map((m) => part(m * minute, `L${m}`, m)),
      "n",
      0,
      10 * minute,
    );
    expect(series.folded).toEqual(["part_id"]);
    expect(series.lines).toEqual([{ label: "all", values: six, records: six.map((m) => `part_id=L${m}`) }]);
  });

  it("leave the members that last: a line for each machine, across its orders", () => {
    const series = buildSeries(
      six.flatMap((m) => ["P1", "P2"].map((machine) => part(m * minute, `${machine}-${m}`, m, { machine }))),
      "n",
      0,
      10 * minute,
    );
    expect(series).toMatchObject({ named: ["machine"], folded: ["part_id"] });
    expect(series.lines.map((line) => [line.label, line.values])).toEqual([
      ["P1", six],
      ["P2", six],
    ]);
  });

  it("keep all records of one moment, and still show an outage", () => {
    const at = [0, 0, 1, 1, 2, 3, 9, 10];
    const series = buildSeries(
      at.map((m, i) => part(m * minute, `L${i}`, i)),
      "n",
      0,
      20 * minute,
    );
    expect(series.lines[0]?.values).toEqual([0, 1, 2, 3, 4, 5, null, 6, 7]);
    expect(series.times.map((s) => Math.round(s))).toEqual([0, 0, 60, 60, 120, 180, 240, 540, 600]);
    expect(series.times).toEqual([...series.times].sort((a, b) => a - b));
    expect(new Set(series.times).size).toBe(series.times.length);
  });

  it("are not guessed from the first records, nor from keys that last", () => {
    const first = ["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8"].map((m) => point(minute, m, { n: 1 }));
    expect(buildSeries(first, "n", 0, 9 * minute).lines).toHaveLength(8);
    const lasting = six.flatMap((m) => ["M1", "M2", "M3"].map((machine) => point(m * minute, machine, { n: m })));
    expect(buildSeries(lasting, "n", 0, 9 * minute)).toMatchObject({ folded: [], omitted: 0 });
  });

  it("leaves out lines that nobody could tell apart, and counts them", () => {
    const many = six.flatMap((m) => Array.from({ length: 70 }, (_, i) => point(m * minute, `M${i}`, { n: m })));
    const series = buildSeries(many, "n", 0, 9 * minute);
    expect(series.lines).toHaveLength(60);
    expect(series.omitted).toBe(10);
    expect(series.lines[59]?.label).toBe("M59");
  });
});

describe("isolatedPoints", () => {
  it.each([
    [[1], [0]],
    [[1, 2], []],
    [[undefined, 1, undefined, undefined], [1]],
    [
      [1, undefined, 2, null, 3, null, 4],
      [4, 6],
    ],
    [[null, undefined], []],
    [[], []],
  ])("of %j are %j", (values, want) => {
    expect(isolatedPoints(values)).toEqual(want);
  });
});

describe("names", () => {
  it("names a line by its key", () => {
    expect(keyLabel({})).toBe("all");
    expect(keyLabel({ machine: "M1" })).toBe("M1");
    expect(keyLabel({ order: 7, line: "a" })).toBe("a · 7");
  });

  it("finds the numeric values", () => {
    expect(numericNames([point(0, "a", { n: 1, state: "RUN", x: null }), point(0, "a", { x: 2.5 })])).toEqual([
      "n",
      "x",
    ]);
  });

  it("finds the newest value", () => {
    expect(lastValue({ label: "a", values: [1, 2, null, undefined] })).toBe(2);
    expect(lastValue({ label: "a", values: [undefined] })).toBeUndefined();
  });
});

describe("axis", () => {
  it("labels ticks in the viewer's zone and marks a new day", () => {
    const at = (h: number, m: number, s = 0, day = 1) => new Date(2026, 2, day, h, m, s).getTime() / 1000;
    expect(timeLabels([at(9, 0), at(9, 5)], 300)).toEqual(["09:00", "09:05"]);
    expect(timeLabels([at(0, 0), at(3, 0)], 10800)).toEqual(["00:00\n2026-03-01", "03:00"]);
    expect(timeLabels([at(9, 0, 15)], 15)).toEqual(["09:00:15"]);
    expect(timeLabels([at(18, 0), at(0, 0, 0, 2), at(6, 0, 0, 2)], 21600)).toEqual([
      "18:00",
      "00:00\n2026-03-02",
      "06:00",
    ]);
  });
});

describe("perMinute", () => {
  it("counts whole minutes, oldest first, without the one under way", () => {
    const now = 10 * minute + 30_000;
    const times = [7 * minute, 9 * minute, 9 * minute + 59_999, 10 * minute + 1, 6 * minute + 59_999];
    expect(perMinute(times, now, 3)).toEqual([1, 0, 2]);
  });
});
