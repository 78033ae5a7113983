import { describe, expect, it } from "vitest";
import {
  bytes,
  columnMeasure,
  count,
  duration,
  isTime,
  jsonValue,
  localDateTime,
  localTime,
  measure,
  members,
  parseLabels,
  parseTime,
  plural,
  relativeTime,
  span,
  utcDateTime,
} from "./format";

const now = new Date("2026-03-01T12:00:00Z");

describe("span", () => {
  it.each([
    [0, "0 s"],
    [40.9, "40 s"],
    [61, "1 min and 1 s"],
    [3600, "1 h"],
    [276_900, "3 days and 4 h"],
    [90_000, "1 day and 1 h"],
    [366 * 86_400, "more than a year"],
  ])("writes %d s as %s", (seconds, text) => expect(span(seconds)).toBe(text));
});

describe("times", () => {
  it("reads a time and takes the zero time for never", () => {
    expect(parseTime("2026-03-01T12:00:00Z")).toEqual(now);
    for (const never of ["", undefined, null, "0001-01-01T00:00:00Z", "yesterday"]) {
      expect(parseTime(never)).toBeUndefined();
    }
  });

  it("knows a time when it sees one", () => {
    for (const yes of ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.123456Z", "2026-03-01T12:00:00+01:00"]) {
      expect(isTime(yes)).toBe(true);
    }
    for (const no of ["2026-03-01", "WO-1012", "2026-03-01T12:00:00", ""]) expect(isTime(no)).toBe(false);
  });

  it.each([
    ["2026-03-01T12:00:00Z", "just now"],
    ["2026-03-01T11:59:48Z", "12 s ago"],
    ["2026-03-01T11:56:30Z", "3 min ago"],
    ["2026-03-01T06:59:00Z", "5 h ago"],
    ["2026-02-27T06:00:00Z", "2 d ago"],
    ["2026-03-01T12:00:30Z", "in 30 s"],
  ])("says how long ago %s was: %s", (at, want) => {
    expect(relativeTime(new Date(at), now)).toBe(want);
  });

  it("writes UTC for the tooltip and the wall clock for the page", () => {
    expect(utcDateTime(now)).toBe("2026-03-01 12:00:00 UTC");
    const local = new Date(2026, 2, 1, 14, 5, 9);
    expect(localDateTime(local)).toBe("2026-03-01 14:05:09");
    expect(localTime(local, new Date(2026, 2, 1, 23, 0, 0))).toBe("14:05:09");
    expect(localTime(local, new Date(2026, 2, 2, 0, 0, 1))).toBe("2026-03-01 14:05:09");
  });

  it.each([
    [0, "0 ms"],
    [850, "850 ms"],
    [29_992, "30 s"],
    [59_400, "59 s"],
    [59_999, "1 min"],
    [60_000, "1 min"],
    [172_800_000, "2 d"],
  ])("writes %d ms as %s", (ms, want) => expect(duration(ms)).toBe(want));
});

describe("numbers", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1200, "1.2 kB"],
    [64_000_000, "64.0 MB"],
    [640_000_000, "640 MB"],
  ])("writes %d bytes as %s", (n, want) => expect(bytes(n)).toBe(want));

  it.each([
    [3, "3"],
    [1234567, "1\u202f234\u202f567"],
    [71.25, "71.25"],
    [71.5, "71.5"],
    [71.4994, "71.5"],
    [69.40873, "69.41"],
    [101.325, "101.3"],
    [6.506121092024401, "6.506"],
    [99.99999, "100"],
    [0.98765432, "0.9877"],
    [0.027027027027, "0.02703"],
    [12345.678, "12345.7"],
    [0.00000123, "1.230e-6"],
    [-0.5, "-0.5"],
  ])("writes %d as %s", (n, want) => expect(measure(n)).toBe(want));

  it("writes the numbers of a column with the same decimals", () => {
    const of = (...column: unknown[]) => column.filter((v) => typeof v === "number").map(columnMeasure(column));
    expect(of(18, 17.91, null, 0, 16.5)).toEqual(["18.00", "17.91", "0", "16.50"]);
    expect(of(1497, 12, "x")).toEqual(["1\u202f497", "12"]);
    expect(of(1234.5, 6.506121)).toEqual(["1234.5", "6.506"]);
    expect(of(0.00000123, 2.5)).toEqual(["1.230e-6", "2.5"]);
    expect(of()).toEqual([]);
  });

  it("shows what is missing as a dash", () => {
    expect(count(undefined)).toBe("–");
    expect(bytes(undefined)).toBe("–");
    expect(jsonValue(null)).toBe("–");
    expect(jsonValue({ a: [1] })).toBe('{"a":[1]}');
  });

  it("counts things", () => {
    expect(plural(1, "agent")).toBe("1 agent");
    expect(plural(2, "agent")).toBe("2 agents");
    expect(plural(0, "entry", "entries")).toBe("0 entries");
  });
});

describe("labels", () => {
  it("reads and writes them", () => {
    expect(parseLabels(" site=berlin, line=2\narea=a=b ")).toEqual({ site: "berlin", line: "2", area: "a=b" });
    expect(members({ site: "berlin", line: 2 })).toBe("line=2, site=berlin");
    expect(members(undefined)).toBe("");
  });

  it.each(["site", "=berlin", "site="])("refuses %s and says how", (text) => {
    expect(() => parseLabels(text)).toThrow(/is not a label/);
  });
});
