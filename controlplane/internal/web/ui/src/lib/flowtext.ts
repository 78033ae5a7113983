// The text of a flow: its steps as a graph, and its colours. Both only show; the control plane has checked the text.

import { parse } from "yaml";

const verbs = [
  "read",
  "filter",
  "map",
  "select",
  "aggregate",
  "join",
  "lookup",
  "union",
  "sort",
  "limit",
  "distinct",
  "unnest",
  "validate",
  "detect",
  "write",
  "insight",
] as const;

/** The ways to detect, each a key of a detect step. */
const methods = ["threshold", "deadband", "rate", "silence", "zscore", "ewma", "cusum"];

export interface GraphStep {
  id: string;
  verb: string;
  /** What the verb works on, in a few words: a connection, a condition, an insight's name. */
  detail: string;
  from: string[];
  /** The column of the drawing, from the left, and the row in it. */
  column: number;
  row: number;
}

/** Reads the steps of a definition and places them, inputs to the left. No steps when the text cannot be read. */
export function flowGraph(definition: string): GraphStep[] {
  let flow: unknown;
  try {
    flow = parse(definition);
  } catch {
    return [];
  }
  const written = isObject(flow) && Array.isArray(flow.steps) ? flow.steps.filter(isObject) : [];
  const steps: GraphStep[] = [];
  written.forEach((step, i) => {
    const verb = verbs.find((v) => v in step) ?? "step";
    const id = typeof step.id === "string" ? step.id : `${verb}_${i + 1}`;
    steps.push({ id, verb, detail: detail(step, verb), from: inputs(step, verb, steps.at(-1)?.id), column: 0, row: 0 });
  });
  place(steps);
  return steps;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function inputs(step: Record<string, unknown>, verb: string, before: string | undefined): string[] {
  if (verb === "read") return [];
  if (verb === "union") return Array.isArray(step.union) ? step.union.map(String) : [];
  const named = typeof step.from === "string" ? step.from : before;
  const joined = verb === "join" && typeof step.join === "string" ? [step.join] : [];
  return named === undefined ? joined : [named, ...joined];
}

function detail(step: Record<string, unknown>, verb: string): string {
  if (verb === "join") return `${step.type ?? "inner"}, on ${names(step.on)}`;
  if (verb === "detect") {
    const method = methods.find((m) => m in step);
    return method ? `${method} of ${names(step.detect)}` : names(step.detect);
  }
  if (verb === "limit" && typeof step.limit === "number") return String(step.limit);
  return names(step[verb]);
}

function names(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(String).join(", ");
  return isObject(value) ? Object.keys(value).join(", ") : "";
}

function place(steps: GraphStep[]): void {
  const byId = new Map(steps.map((step) => [step.id, step]));
  const inputsOf = (step: GraphStep) => step.from.flatMap((id) => byId.get(id) ?? []).filter((s) => s !== step);
  for (const step of steps) step.column = Math.max(0, ...inputsOf(step).map((s) => s.column + 1));
  // What is read stands right before the step that takes it, so that no line runs behind another box.
  for (const step of steps.filter(({ from }) => from.length === 0)) {
    const takers = steps.filter((s) => inputsOf(s).includes(step)).map((s) => s.column);
    if (takers.length > 0) step.column = Math.max(0, Math.min(...takers) - 1);
  }
  const rows: number[] = [];
  for (const step of steps) {
    step.row = Math.max(inputsOf(step)[0]?.row ?? 0, rows[step.column] ?? 0);
    rows[step.column] = step.row + 1;
  }
}

export type TokenKind = "key" | "string" | "number" | "word" | "comment" | "plain";

export interface Token {
  kind: TokenKind;
  text: string;
}

const patterns: [TokenKind, RegExp][] = [
  ["comment", /^#.*/],
  ["string", /^"(?:\\.|[^"\\])*"(?!\s*:)|^'(?:''|[^'])*'(?!\s*:)/],
  ["key", /^(?:"(?:\\.|[^"\\])*"|[A-Za-z_][\w.-]*)(?=\s*:(?:\s|$))/],
  ["number", /^-?\d+(?:\.\d+)?(?:ms|[smhd])?\b(?![-\w])/],
  ["word", /^(?:true|false|null|and|or|not|in|matches|continuous|manual)\b/],
  ["plain", /^(?:[A-Za-z_][\w.-]*|\s+|.)/],
];

/** Splits one line of YAML or JSON into coloured parts; their texts joined are the line. */
export function colourLine(line: string): Token[] {
  const tokens: Token[] = [];
  let rest = line;
  while (rest !== "") {
    const before = tokens.at(-1);
    for (const [kind, pattern] of patterns) {
      const text = pattern.exec(rest)?.[0];
      if (!text || (kind === "comment" && before && !/\s$/.test(before.text))) continue;
      if (kind === "plain" && before?.kind === "plain") before.text += text;
      else tokens.push({ kind, text });
      rest = rest.slice(text.length);
      break;
    }
  }
  return tokens;
}
