// How live insights join a list that was loaded: each once, newest first, within the list's range and size.

import { type InsightList, type InsightSelection, mostInsights } from "../api/queries";
import type { Insight } from "../api/types";

const identity = (insight: Insight) => `${insight.agent_id}/${insight.seq}`;

/** The list with what came in; the same object when nothing of it belongs there. */
export function addInsights(list: InsightList, selection: InsightSelection, came: Insight[], now: number): InsightList {
  const have = new Set(list.items.map(identity));
  const fresh = came.filter(
    (insight) => (selection.name === undefined || insight.name === selection.name) && !have.has(identity(insight)),
  );
  if (fresh.length === 0) return list;
  const oldest = selection.minutes === undefined ? Number.NEGATIVE_INFINITY : now - selection.minutes * 60_000;
  const all = [...fresh, ...list.items]
    .map((insight) => ({ insight, time: Date.parse(insight.time) }))
    .filter(({ time }) => time >= oldest)
    .sort((a, b) => b.time - a.time || b.insight.seq - a.insight.seq)
    .map(({ insight }) => insight);
  const most = selection.minutes === undefined ? 500 : mostInsights;
  return { items: all.slice(0, most), truncated: list.truncated || all.length > most };
}
