// The account of an agent's insights in words. Pure: the same rules for the lists, the overview and the tests.

import type { Agent, DamagedFile, Outbox } from "../api/types";
import { count, plural, span } from "./format";

export interface Trouble {
  severity: "bad" | "warn";
  /** The same for the same trouble of other agents. */
  kind: string;
  /** What it is, of many agents. */
  what: string;
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
  const damaged = outbox.damage.filter((file) => !wentBack(file)).length;
  const short = outbox.runway_seconds >= 0 && outbox.runway_seconds < shortRunway;
  const found: [boolean, Trouble][] = [
    [
      !!outbox.degraded,
      {
        severity: "bad",
        kind: "degraded",
        what: "Cannot write to their disks",
        short: "Cannot stage",
        long: `Cannot write to its disk: ${outbox.degraded ?? ""}`,
      },
    ],
    [
      outbox.blocked > 0 && !outbox.degraded,
      {
        severity: "bad",
        kind: "blocked",
        what: "Flows wait for room",
        short: "Flows wait",
        long: `Its flows wait for room: ${outbox.blocked_by || "the outbox is full"}`,
      },
    ],
    [
      short && outbox.blocked === 0,
      {
        severity: "warn",
        kind: "room",
        what: "Room for less than a day",
        short: `Room for ${span(outbox.runway_seconds)}`,
        long: `Has room for ${span(outbox.runway_seconds)} more at the present rate.`,
      },
    ],
    [
      gone > 0,
      {
        severity: "warn",
        kind: "lost",
        what: "Insights were lost",
        short: `${count(gone)} lost`,
        long: `${plural(gone, "insight")} lost; its page says where.`,
      },
    ],
    [
      expired > 0,
      {
        severity: "warn",
        kind: "expired",
        what: "Insights have expired",
        short: `${count(expired)} expired`,
        long: `${plural(expired, "insight")} dropped by the plant's rules before they could be sent.`,
      },
    ],
    [
      damaged > 0,
      {
        severity: "warn",
        kind: "damaged",
        what: "Files on the disks were damaged",
        short: plural(damaged, "damaged file"),
        long: `${plural(damaged, "file")} on its disk found damaged and set aside; its page says what was saved and what to do.`,
      },
    ],
    [
      damaged < outbox.damage.length,
      {
        severity: "warn",
        kind: "went-back",
        what: "An older copy of the staging was put in its place",
        short: "Staging went back",
        long: "An older copy of its staging directory was put in its place. Nothing was lost by it, but some insights may come twice; its page says more.",
      },
    ],
    [
      outbox.set_aside.some(({ waiting }) => waiting !== 0),
      {
        severity: "warn",
        kind: "set-aside",
        what: "Insights of earlier agents were set aside",
        short: "An earlier agent's insights",
        long: "The machine was another agent before, whose insights were set aside and are not sent; its page says more.",
      },
    ],
    [
      outbox.refused > 0,
      {
        severity: "warn",
        kind: "refused-insights",
        what: "Insights could never be stored",
        short: `${count(outbox.refused)} refused`,
        long: `${plural(outbox.refused, "insight")} came and could never be stored; its page says why.`,
      },
    ],
  ];
  return found.filter(([there]) => there).map(([, trouble]) => trouble);
}

/** From how many insights on it is worth a look that they wait on an agent that is connected. */
const manyWait = 10_000;

/** Whether an agent that is connected does not get rid of what it has produced. */
export function isBehind({ connected, outbox }: Agent): boolean {
  return connected && outbox.waiting_records > manyWait;
}

/** How full the outbox is, from 0 to 1; undefined when that is not known. */
export function fullness({ waiting_bytes, room_bytes }: Outbox): number | undefined {
  const all = waiting_bytes + room_bytes;
  return all > 0 ? waiting_bytes / all : undefined;
}

/** How long the room lasts, as people say it. */
export function runwayText({ runway_seconds, blocked, degraded }: Outbox): string {
  if (degraded) return "Cannot be used: flows wait";
  if (blocked > 0) return "Full: flows wait";
  if (runway_seconds < 0) return "Does not fill at the present rate";
  return `${span(runway_seconds)} of room left at the present rate`;
}

/** How many insights never came, for whatever reason. */
export function neverCame({ receipts }: Outbox): number {
  return total(receipts);
}

export interface MissingReason {
  reason: string;
  n: number;
  /** What happened, and what to do about it, in sentences. */
  what: string;
  advice: string;
}

const missingTexts: Record<string, [what: string, advice: string]> = {
  damaged: [
    "They were damaged on the agent's disk and could not be salvaged.",
    "Check the disk of its machine; the panel of damaged files says more.",
  ],
  restored: [
    "They were stored here once. Then this control plane's database went back to an earlier state, as after a restore, and the agent no longer had them.",
    "A newer backup of the database may still hold them.",
  ],
  expired_age: [
    "They had waited for longer than staging.max_age in the agent's configuration allows.",
    "To keep them for longer, raise it, and see why the agent could not send.",
  ],
  expired_bytes: [
    "The outbox was full, and staging.when_full in the agent's configuration has the oldest make room for the newest.",
    "To keep more, raise staging.max_bytes, and see why the agent could not send.",
  ],
  unsendable: [
    "They are too large for a message, or the agent could not read them.",
    "Let the flow put less into one insight.",
  ],
};

/** Why insights never came, the most frequent reason first. */
export function missingReasons({ receipts }: Outbox): MissingReason[] {
  return Object.entries(receipts)
    .filter(([, n]) => n > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, n]) => {
      const [what, advice] = missingTexts[reason] ?? [
        "The agent gave a reason that this control plane does not know.",
        "",
      ];
      return { reason, n, what, advice };
    });
}

/** Whether no file was damaged, but an older copy of the staging put in its place (docs/staging.md). */
export function wentBack({ file }: DamagedFile): boolean {
  return file.startsWith("outbox.corrupt-");
}

/** What was saved of a damaged file, in a sentence. */
export function damageResult(of: DamagedFile): string {
  const { file, salvaged, lost } = of;
  if (wentBack(of)) return "The directory went back. Nothing was lost by it; some insights may come twice.";
  if (file.startsWith("state.db")) return "The flows' state was rebuilt from what is whole in it.";
  if (lost === 0) return salvaged === 0 ? "Nothing was lost." : `All ${plural(salvaged, "insight")} salvaged.`;
  return `${plural(lost, "insight")} lost, ${count(salvaged)} salvaged.`;
}

/**
 * What to call the flows that run, or ran, under these deployments of an agent. In round brackets the agent says why it
 * does not know which one it was.
 */
export function flowNames({ status }: Agent, deployments: readonly string[]): string[] {
  return deployments.map((id) => {
    const unknown = /^\((.*)\)$/.exec(id)?.[1];
    if (unknown) return unknown.charAt(0).toUpperCase() + unknown.slice(1);
    return status?.flows.find((f) => f.deployment_id === id)?.name ?? `A flow that is no longer deployed (${id})`;
  });
}

/** How much of a refused record is shown, in characters. */
const shownRecord = 4000;

/** What can be read of a record: its texts as they are, and a dot for each byte that is none. */
export function recordText(base64: string): string {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const text = new TextDecoder().decode(bytes).replace(/[\p{Cc}\uFFFD]/gu, "·");
  return text.length > shownRecord ? `${text.slice(0, shownRecord)}…` : text;
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
