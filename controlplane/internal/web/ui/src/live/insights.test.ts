import { describe, expect, it } from "vitest";
import type { Insight } from "../api/types";
import { addInsights } from "./insights";

const insight = (seq: number, time: string, name = "press_health", agent = "a1"): Insight => ({
  agent_id: agent,
  seq,
  flow_id: "f1",
  flow_name: "press-health",
  version: 1,
  name,
  time,
  received_at: time,
  key: {},
  values: {},
});

const now = Date.parse("2026-03-01T12:00:00Z");
const first = insight(1, "2026-03-01T11:58:00Z");
const second = insight(2, "2026-03-01T11:59:00Z");

describe("addInsights", () => {
  it("adds each once, newest first", () => {
    const list = { items: [first], truncated: false };
    const added = addInsights(list, { name: undefined, minutes: undefined }, [first, second], now);
    expect(added.items.map((i) => i.seq)).toEqual([2, 1]);
    expect(addInsights(added, { name: undefined, minutes: undefined }, [second], now)).toBe(added);
  });

  it("tells agents with the same sequence apart", () => {
    const other = insight(1, "2026-03-01T11:57:00Z", "press_health", "a2");
    const added = addInsights({ items: [first], truncated: false }, { name: undefined, minutes: 15 }, [other], now);
    expect(added.items.map((i) => i.agent_id)).toEqual(["a1", "a2"]);
  });

  it("leaves out other names and drops what has left the range", () => {
    const list = { items: [first], truncated: false };
    const selection = { name: "press_health", minutes: 1.5 };
    expect(addInsights(list, selection, [insight(3, "2026-03-01T11:59:30Z", "other")], now)).toBe(list);
    expect(addInsights(list, selection, [second], now).items.map((i) => i.seq)).toEqual([2]);
  });

  it("keeps the newest 500 of all names", () => {
    const many = Array.from({ length: 510 }, (_, i) => insight(i, new Date(now - i * 1000).toISOString()));
    const added = addInsights({ items: [], truncated: false }, { name: undefined, minutes: undefined }, many, now);
    expect(added.items).toHaveLength(500);
    expect(added.items[0]?.seq).toBe(0);
    expect(added.truncated).toBe(true);
  });
});
