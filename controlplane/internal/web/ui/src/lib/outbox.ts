// The account of an agent's insights in words. Pure: the same rules for the lists, the overview and the tests.

import type { Agent, Outbox } from "../api/types";
import { count, plural, span } from "./format";

export interface Trouble {
  severity: "bad" | "warn";
  /** A word or three, for a badge. */
  short: string;
  /** A sentence. */
  long: string;
}

/** Below this runway, in seconds, an agent needs a person's attention. */
const shortRunway = 86_400;

const total = (counts: Record<string, number>) => Object.values(counts).reduce((sum, n) => sum + n, 0);

/** What is wrong with an outbox, worst first. What was lost stays told: it does not come back. */
export function troubles({ outbox }: Agent): Trouble[] {
  const expired = total(outbox.expired);
  const gone = outbox.lost + outbox.lost_remotely;
  const short = outbox.runway_seconds >= 0 && outbox.runway_seconds < shortRunway;
  const found: [boolean, Trouble][] = [
    [
      !!outbox.degraded,
      { severity: "bad", short: "Cannot stage", long: `Cannot write to its disk: ${outbox.degraded ?? ""}` },
    ],
    [
      outbox.blocked > 0,
      {
        severity: "bad",
        short: "Flows wait",
        long: `Its flows wait for room: ${outbox.blocked_by || "the outbox is full"}`,
      },
    ],
    [
      short && outbox.blocked === 0,
      {
        severity: "warn",
        short: `Room for ${span(outbox.runway_seconds)}`,
        long: `Has room for ${span(outbox.runway_seconds)} more at the present rate.`,
      },
    ],
    [
      gone > 0,
      { severity: "warn", short: `${count(gone)} lost`, long: `${plural(gone, "insight")} lost; its page says where.` },
    ],
    [
      expired > 0,
      {
        severity: "warn",
        short: `${count(expired)} expired`,
        long: `${plural(expired, "insight")} dropped by the plant's rules before they could be sent.`,
      },
    ],
    [
      outbox.refused > 0,
      {
        severity: "warn",
        short: `${count(outbox.refused)} refused`,
        long: `${plural(outbox.refused, "insight")} came and could never be stored; its page says why.`,
      },
    ],
  ];
  return found.filter(([there]) => there).map(([, trouble]) => trouble);
}

/** How full the outbox is, from 0 to 1; undefined when that is not known. */
export function fullness({ waiting_bytes, room_bytes }: Outbox): number | undefined {
  const all = waiting_bytes + room_bytes;
  return all > 0 ? waiting_bytes / all : undefined;
}

/** How long the room lasts, as people say it. */
export function runwayText({ runway_seconds, blocked }: Outbox): string {
  if (blocked > 0) return "Full: flows wait";
  if (runway_seconds < 0) return "Does not fill at the present rate";
  return `${span(runway_seconds)} of room left at the present rate`;
}

/** What the reason of a receipt or the name of a rule means. */
export function reasonText(reason: string): string {
  const known: Record<string, string> = {
    damaged: "Damaged",
    restored: "Gone after a restore",
    expired_age: "Expired by age",
    expired_bytes: "Expired by size",
    unsendable: "Cannot be sent",
    other: "Another reason",
  };
  return known[reason] ?? reason.replaceAll("_", " ");
}
