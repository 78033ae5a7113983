// Who an agent is, its clock and its keys, in words: what is wrong, what it does and what to do. The client
// (controlplane/cmd/outfeed) and the agent's status say the same. Pure.

import type { Agent } from "../api/types";
import { count, parseTime, span } from "./format";

export interface IdentityTrouble {
  kind: "clock" | "keys";
  /** A word or three, for a badge. */
  short: string;
  /** A sentence. */
  long: string;
  /** What it does until somebody has seen to it. */
  meanwhile: string;
  /** What to do, and the command that does it on the agent's machine. */
  advice: string;
  command: string;
}

const day = 86_400;
const year = 365 * day;
/** How far a clock may be off, in seconds, before it is worth a line: no network explains more. */
const tolerableSkew = 5;
/** How long after it was asked for, a change of keys is late on an agent that was connected since. */
const rotationTakesMs = 10 * 60_000;

/** What is wrong with an agent's clock and keys; a revoked one needs neither. */
export function identityTroubles(agent: Agent): IdentityTrouble[] {
  if (parseTime(agent.revoked_at)) return [];
  return [...clockTrouble(agent), ...keysTrouble(agent)];
}

/** Whether an agent's clock is off by more than a network can explain. */
export function isSkewed(agent: Agent): boolean {
  return Math.abs(agent.clock_skew_seconds) > tolerableSkew;
}

/** How far a clock is off, like "56 years behind". */
export function clockText(seconds: number): string {
  const off = Math.abs(seconds);
  const side = seconds > 0 ? "ahead" : "behind";
  if (off >= 2 * year) return `${count(Math.floor(off / year))} years ${side}`;
  if (off >= 2 * day) return `${count(Math.floor(off / day))} days ${side}`;
  return `${span(off)} ${side}`;
}

function clockTrouble(agent: Agent): IdentityTrouble[] {
  if (!isSkewed(agent)) return [];
  const text = clockText(agent.clock_skew_seconds);
  const windows = agent.os === "windows";
  return [
    {
      kind: "clock",
      short: `Clock ${text}`,
      long: `Its clock is ${text}${agent.clock_skew_seconds > 0 ? " of" : ""} the control plane's.`,
      meanwhile:
        "Nothing is lost: the connection and what waits do not depend on this clock. But cron triggers fire at wrong times, flows stamp what they read with wrong times, and TLS connections to plant systems may be refused.",
      advice: windows
        ? "Set it as administrator. Windows may refuse to mend many hours: set about the right time with Set-Date before."
        : "Set it. Where no time server is in reach: sudo timedatectl set-time 'YYYY-MM-DD hh:mm:ss'.",
      command: windows ? "w32tm /resync" : "sudo timedatectl set-ntp true",
    },
  ];
}

/** Whether an agent was connected for long enough to change its keys, and has not. */
export function isRotationOverdue(agent: Agent): boolean {
  const asked = parseTime(agent.rotation_asked_at);
  const seen = parseTime(agent.last_seen_at);
  return asked !== undefined && seen !== undefined && seen.getTime() - asked.getTime() > rotationTakesMs;
}

function keysTrouble(agent: Agent): IdentityTrouble[] {
  if (!isRotationOverdue(agent)) return [];
  return [
    {
      kind: "keys",
      short: "Keys not changed",
      long: "It has not changed its keys, though it was asked to and was connected since.",
      meanwhile: "Its present keys stay good until then, and it tries again each time it connects.",
      advice: "As a rule its disk cannot be written. This says why, on its machine:",
      command: "outfeed-agent rotate-keys",
    },
  ];
}
