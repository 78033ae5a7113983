import { describe, expect, it } from "vitest";
import { colourLine, flowGraph } from "./flowtext";

const scrap = `
flow: scrap-per-order
steps:
  - id: counts
    read: press-plc
  - filter: state == "RUN"
  - id: orders
    read: mes
  - id: both
    join: orders
    from: filter_2
    on: {machine: press}
  - insight: scrap_per_order
    key: [order]
`;

describe("flowGraph", () => {
  it("finds the steps, their inputs and their places", () => {
    expect(flowGraph(scrap)).toEqual([
      { id: "counts", verb: "read", detail: "press-plc", from: [], column: 0, row: 0 },
      { id: "filter_2", verb: "filter", detail: 'state == "RUN"', from: ["counts"], column: 1, row: 0 },
      { id: "orders", verb: "read", detail: "mes", from: [], column: 1, row: 1 },
      { id: "both", verb: "join", detail: "inner, on machine", from: ["filter_2", "orders"], column: 2, row: 0 },
      { id: "insight_5", verb: "insight", detail: "scrap_per_order", from: ["both"], column: 3, row: 0 },
    ]);
  });

  it("draws what a union takes, and says what a detect and a limit do", () => {
    const steps = flowGraph(
      "steps: [{id: a, read: x}, {id: b, read: y}, {id: both, union: [a, b]}, {detect: temp, rate: {above: 1}}, {limit: 5}]",
    );
    expect(steps.map(({ from, detail }) => [from, detail]).slice(2)).toEqual([
      [["a", "b"], "a, b"],
      [["both"], "rate of temp"],
      [["detect_4"], "5"],
    ]);
  });

  it("reads JSON as well, and draws nothing from what it cannot read", () => {
    expect(flowGraph('{"flow":"x","steps":[{"read":"a"}]}')[0]).toMatchObject({ id: "read_1", detail: "a" });
    for (const text of ["", "steps: [", "steps: 3", "[1, 2]"]) expect(flowGraph(text)).toEqual([]);
  });

  it("does not fall for a step that names itself or nobody", () => {
    expect(
      flowGraph("steps: [{id: a, filter: x, from: a}, {id: b, map: {}, from: nobody}]").map((s) => s.column),
    ).toEqual([0, 0]);
  });
});

describe("colourLine", () => {
  it.each([
    [
      "  - id: readings # raw",
      [
        ["plain", "  - "],
        ["key", "id"],
        ["plain", ": readings "],
        ["comment", "# raw"],
      ],
    ],
    [
      "window: {tumbling: 1m, late: 5s}",
      [
        ["key", "window"],
        ["plain", ": {"],
        ["key", "tumbling"],
        ["plain", ": "],
        ["number", "1m"],
        ["plain", ", "],
        ["key", "late"],
        ["plain", ": "],
        ["number", "5s"],
        ["plain", "}"],
      ],
    ],
    [
      'filter: state == "RUN" and temp > 60',
      [
        ["key", "filter"],
        ["plain", ": state == "],
        ["string", '"RUN"'],
        ["plain", " "],
        ["word", "and"],
        ["plain", " temp > "],
        ["number", "60"],
      ],
    ],
    [
      '{"flow": "x"}',
      [
        ["plain", "{"],
        ["key", '"flow"'],
        ["plain", ": "],
        ["string", '"x"'],
        ["plain", "}"],
      ],
    ],
    [
      "topic: plant/press/+/state#1",
      [
        ["key", "topic"],
        ["plain", ": plant/press/+/state#"],
        ["number", "1"],
      ],
    ],
  ])("colours %s", (line, want) => {
    expect(colourLine(line).map((t) => [t.kind, t.text])).toEqual(want);
  });

  it("loses nothing of any line", () => {
    for (const line of ["", '\t"unclosed', "'", "ä: ö # ü", "a:b", "- - -", "x: |", "😀: '😀'"]) {
      expect(
        colourLine(line)
          .map((t) => t.text)
          .join(""),
      ).toBe(line);
    }
  });
});
