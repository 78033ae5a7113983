// What needs a person's attention, worst first. Pure: the same rules for the overview, the lists and the tests.

import type { Agent, Flow, FlowStatus, Run } from "../api/types";
import { byId } from "./byid";
import { count, duration, parseTime, plural } from "./format";
import { identityTroubles } from "./identity";
import { isBehind, troubles } from "./outbox";

export type Severity = "bad" | "warn";

export interface Finding {
  severity: Severity;
  /** What it is about, and where to read more of it. */
  subject: string;
  target: { kind: "agent" | "flow" | "run"; id: string } | { kind: "agents"; state: "away" | "trouble" };
  message: string;
  since: Date | undefined;
}

/** A finding about one agent, with what it has in common with those of others. */
interface AgentFinding extends Finding {
  /** The same for findings that can be told as one. */
  key: string;
  /** What it is in a few words, as in "12 agents: not connected". */
  what: string;
  /** The agent that this one is about. */
  agent: string;
  /** Why, in the words of a flow. */
  reason?: string;
}

/** The state of a flow across agents. */
export type FlowHealth = "running" | "waiting" | "failing" | "unknown" | "idle";

const failingStates = new Set(["failed", "refused", "backing_off"]);

/** Whether a flow on one agent is failing: it says so, or one of its sources does. */
export function isFailing(status: FlowStatus): boolean {
  const setBack = (status.set_back_from ?? 0) > 0;
  return setBack || failingStates.has(status.state) || status.sources.some((s) => s.state === "failing");
}

/** The first reason that a flow on one agent gives, in its own words: that of a source, which names the connection. */
export function failureReason(status: FlowStatus): string {
  const source = status.sources.find((s) => s.error && (!status.error || status.error.includes(s.error)));
  return source ? `${source.connection}: ${source.error}` : (status.error ?? "");
}

/** Whether a text of a list ends before its end; get-agent has the whole. */
export function isCut(text: string): boolean {
  return text.endsWith("…");
}

/** The state of a flow on one agent in a word or two: one that runs but cannot read is failing. */
export function flowStateText(status: FlowStatus): string {
  const sourceFails = status.sources.some((s) => s.state === "failing");
  if (status.state === "running" && (status.set_back_from ?? 0) > 0 && !sourceFails) return "Set back";
  return stateText(status.state === "running" && isFailing(status) ? "failing" : status.state);
}

/** One word for a flow on all the agents it is deployed to; the worst wins. */
export function flowHealth(flow: Flow, agents: readonly Agent[]): FlowHealth {
  const deployments = flow.deployments;
  if (deployments.length === 0) return "idle";
  const found = deployments.map((deployment): FlowHealth => {
    const agent = byId(agents).get(deployment.agent_id);
    const status = agent?.status?.flows.find((f) => f.flow_id === flow.id);
    if (!agent?.connected || !status) return "unknown";
    if (isFailing(status)) return "failing";
    return status.state === "running" || status.state === "completed" ? "running" : "waiting";
  });
  const worst: FlowHealth[] = ["failing", "unknown", "waiting"];
  return worst.find((health) => found.includes(health)) ?? "running";
}

/**
 * Everything worth a look, bad before warn, newest first within each. What many agents have in common is one thing to look
 * at, not many.
 */
export function findings(agents: readonly Agent[], runs: readonly Run[], now: Date): Finding[] {
  const active = agents.filter((a) => !parseTime(a.revoked_at));
  const all = [...together(active.flatMap((a) => ofAgent(a, now))), ...ofRuns(runs, active, now)];
  const rank = { bad: 0, warn: 1 };
  return all.sort(
    (a, b) => rank[a.severity] - rank[b.severity] || (b.since?.getTime() ?? 0) - (a.since?.getTime() ?? 0),
  );
}

/** From how many agents on the same finding is told once, and how many of them are named. */
const many = 5;
const named = 3;

function together(all: readonly AgentFinding[]): Finding[] {
  const groups = new Map<string, AgentFinding[]>();
  for (const finding of all) {
    const key = `${finding.severity}/${finding.key}`;
    const group = groups.get(key);
    if (group) group.push(finding);
    else groups.set(key, [finding]);
  }
  return [...groups.values()].flatMap((group) => (group.length < many ? group.map(alone) : [asOne(group)]));
}

function alone({ severity, subject, target, message, since }: Finding): Finding {
  return { severity, subject, target, message, since };
}

function asOne(group: readonly AgentFinding[]): Finding {
  const newest = group.reduce((a, b) => ((b.since?.getTime() ?? 0) > (a.since?.getTime() ?? 0) ? b : a));
  const names = group.slice(0, named).map((f) => f.agent);
  const list = `${names.join(", ")} and ${count(group.length - names.length)} more`;
  const what = newest.what;
  const { severity, since } = newest;
  if (newest.target.kind === "flow") {
    const same = group.every((f) => f.reason === newest.reason);
    const reason = same && newest.reason ? `: ${newest.reason}` : ".";
    const message = `${what} on ${plural(group.length, "agent")} (${list})${reason}`;
    return { severity, subject: newest.subject, target: newest.target, message, since };
  }
  const state = newest.key === absent ? "away" : "trouble";
  return {
    severity,
    subject: plural(group.length, "agent"),
    target: { kind: "agents", state },
    message: `${what}: ${list}.`,
    since,
  };
}

const absent = "absent";

function ofAgent(agent: Agent, now: Date): AgentFinding[] {
  const target = { kind: "agent", id: agent.id } as const;
  const about = (
    severity: Severity,
    [key, what]: readonly [string, string],
    message: string,
    since: Date | undefined,
  ): AgentFinding[] => [{ severity, subject: agent.name, target, message, since, key, what, agent: agent.name }];
  const status = agent.status;
  const at = parseTime(status?.time);
  const waiting = agent.outbox.waiting_records;
  return [
    ...(agent.lock
      ? about("bad", ["locked", "Locked, because a copy has connected"], locked, parseTime(agent.lock.since))
      : []),
    ...(agent.connected || agent.lock
      ? []
      : about("bad", [absent, "Not connected"], absence(agent, now), parseTime(agent.last_seen_at))),
    ...identityTroubles(agent).flatMap(({ kind, long }) =>
      about(
        "warn",
        [kind, kind === "clock" ? "The clock is wrong" : "The keys were not changed"],
        `${long} Its page says what to do.`,
        undefined,
      ),
    ),
    ...(status?.bundle_error
      ? about(
          "bad",
          ["refused", "Newest configuration not in use"],
          `Runs without its newest configuration: ${status.bundle_error}`,
          at,
        )
      : []),
    ...(status?.flows ?? []).filter(isFailing).map((flow) => ofFlow(flow, agent)),
    ...troubles(agent).flatMap(({ severity, kind, what, long }) => about(severity, [kind, what], long, undefined)),
    ...(isBehind(agent)
      ? about(
          "warn",
          ["waiting", "More than 10\u202f000 insights wait to be sent"],
          `${plural(waiting, "insight")} wait to be sent.`,
          at,
        )
      : []),
  ];
}

const locked = "Locked: a copy of it has connected. An owner decides which one goes on.";

function absence(agent: Agent, now: Date): string {
  const seen = parseTime(agent.last_seen_at);
  if (!seen) return "Has never connected.";
  const away = duration(now.getTime() - seen.getTime());
  return `Not connected for ${away}. Its flows go on; insights wait on the machine.`;
}

function ofFlow(flow: FlowStatus, agent: Agent): AgentFinding {
  return {
    severity: "bad",
    subject: flow.name,
    target: { kind: "flow", id: flow.flow_id },
    message: `${flowStateText(flow)} on ${agent.name}${reasonSuffix(flow)}`,
    since: failingSince(flow),
    key: `flow/${flow.flow_id}/${flowStateText(flow)}`,
    what: flowStateText(flow),
    agent: agent.name,
    reason: failureReason(flow),
  };
}

// A flow that runs on with a source that fails has been in its state for longer than it has failed.
function failingSince(flow: FlowStatus): Date | undefined {
  const source = flow.state === "running" ? flow.sources.find((s) => s.state === "failing") : undefined;
  return parseTime(source?.last_record) ?? parseTime(flow.since);
}

function reasonSuffix(flow: FlowStatus): string {
  const reason = failureReason(flow);
  return reason ? `: ${reason}` : ".";
}

const dayMs = 86_400_000;

// A run that failed is told once for each flow, with the newest: a flow that fails every minute is one thing to mend.
// It is not told at all while the agent itself says that the flow is failing.
function ofRuns(runs: readonly Run[], agents: readonly Agent[], now: Date): Finding[] {
  const isTold = (run: Run) =>
    byId(agents)
      .get(run.agent_id)
      ?.status?.flows.some((f) => f.flow_id === run.flow_id && isFailing(f));
  const newest = new Map<string, Run>();
  for (const run of runs) {
    const other = newest.get(run.flow_id);
    if (!other || run.started_at > other.started_at) newest.set(run.flow_id, run);
  }
  return [...newest.values()].flatMap((run): Finding[] => {
    const started = parseTime(run.started_at);
    if (!started || now.getTime() - started.getTime() > dayMs) return [];
    const target = { kind: "run", id: run.id } as const;
    if (run.status === "failed" && isTold(run)) return [];
    if (run.status === "failed") {
      const message = run.error ? `The newest run failed: ${run.error}` : "The newest run failed.";
      return [{ severity: "bad", subject: run.flow_name, target, message, since: started }];
    }
    if (run.failed > 0) {
      const message = `${plural(run.failed, "record")} of the newest run could not be used.`;
      return [{ severity: "warn", subject: run.flow_name, target, message, since: started }];
    }
    return [];
  });
}

/** A state of the protocol as people say it: "backing_off" is "backing off". */
export function stateText(state: string): string {
  const text = state.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
