import { describe, expect, it } from "vitest";
import type { Agent, Flow, FlowStatus, Run } from "../api/types";
import { findings, flowHealth } from "./attention";
import { outbox } from "./outbox.sample";

const now = new Date("2026-03-01T12:00:00Z");
const at = "2026-03-01T11:00:00Z";

function status(over: Partial<FlowStatus> = {}): FlowStatus {
  return {
    deployment_id: "d1",
    flow_id: "f1",
    name: "press-health",
    version: 1,
    state: "running",
    since: at,
    sources: [],
    ...over,
  };
}

function agent(over: Partial<Agent> = {}, flows: FlowStatus[] = [status()], waiting = 0): Agent {
  return {
    id: "a1",
    workspace_id: "w1",
    name: "press-hall",
    labels: {},
    hostname: "h",
    os: "linux",
    arch: "amd64",
    version: "1",
    fingerprint: "ff",
    created_at: at,
    connected: true,
    last_seen_at: at,
    clock_skew_seconds: 0,
    desired_serial: 1,
    applied_serial: 1,
    outbox: outbox({ reported_at: at, waiting_records: waiting }),
    status: { time: at, flows },
    connector_kinds: [],
    ...over,
  };
}

function run(over: Partial<Run> = {}): Run {
  return {
    id: "r1",
    agent_id: "a1",
    flow_id: "f1",
    flow_name: "press-health",
    version: 1,
    status: "ok",
    started_at: at,
    records_read: 1,
    bytes_read: 1,
    failed: 0,
    late: 0,
    insights: 1,
    steps: [],
    sample: [],
    ...over,
  };
}

const deployed: Flow = {
  id: "f1",
  name: "press-health",
  description: "",
  created_at: at,
  updated_at: at,
  latest_version: 1,
  published_version: 1,
  deployments: [{ id: "d1", flow_id: "f1", flow_name: "press-health", version: 1, agent_id: "a1", created_at: at }],
};

describe("findings", () => {
  it("finds nothing where all is well", () => {
    expect(findings([agent()], [run()], now)).toEqual([]);
  });

  it("puts what is bad before what is a warning, each with its reason", () => {
    const found = findings(
      [
        agent({}, [
          status({
            state: "backing_off",
            sources: [{ step: "readings", connection: "press-plc", state: "failing", error: "connection refused" }],
          }),
        ]),
        agent({ id: "a2", name: "lathe-cell", connected: false }),
      ],
      [run({ failed: 3 })],
      now,
    );
    expect(found.map((f) => [f.severity, f.subject, f.message])).toEqual([
      ["bad", "press-health", "Backing off on press-hall: press-plc: connection refused"],
      ["bad", "lathe-cell", "Not connected for 1 h. Its flows go on; insights wait on the machine."],
      ["warn", "press-health", "3 records of the newest run could not be used."],
    ]);
  });

  it("tells a locked agent once, and a clock that is off", () => {
    const side = { hostname: "h", address: "10.0.0.1", seen_at: at, counter: 3 };
    const lock = { since: at, reason: "session" as const, connected: side, other: side };
    const messages = findings([agent({ lock, connected: false, clock_skew_seconds: -7200 })], [], now).map(
      (f) => f.message,
    );
    expect(messages).toEqual([
      "Locked: a copy of it has connected. An owner decides which one goes on.",
      "Its clock is 2 h behind the control plane's. Its page says what to do.",
    ]);
  });

  it("tells refused bundles, refused flows, full outboxes and agents that never came", () => {
    const refused = agent({}, [status({ state: "refused", error: "not allowed by the plant's policy" })], 20_000);
    if (refused.status) refused.status.bundle_error = "the signature is not of a known key";
    const messages = findings([refused, agent({ id: "a2", connected: false, last_seen_at: "" })], [], now).map(
      (f) => f.message,
    );
    expect(messages).toContain("Runs without its newest configuration: the signature is not of a known key");
    expect(messages).toContain("Refused on press-hall: not allowed by the plant's policy");
    expect(messages).toContain("20\u202f000 insights wait to be sent.");
    expect(messages).toContain("Has never connected.");
  });

  it("tells a source that fails once: not as a flow that runs, nor again as a run that failed", () => {
    const source = {
      step: "readings",
      connection: "press-plc",
      state: "failing",
      error: "connection refused",
      last_record: "2026-03-01T11:50:00Z",
    };
    const flow = status({ error: "step readings: connection press-plc: connection refused", sources: [source] });
    const found = findings([agent({}, [flow])], [run({ status: "failed", error: flow.error ?? "" })], now);
    expect(found).toEqual([
      {
        severity: "bad",
        subject: "press-health",
        target: { kind: "flow", id: "f1" },
        message: "Failing on press-hall: press-plc: connection refused",
        since: new Date(source.last_record),
      },
    ]);
    const mended = findings([agent()], [run({ status: "failed", error: "x" })], now);
    expect(mended.map((f) => f.message)).toEqual(["The newest run failed: x"]);
  });

  it("gives a flow's own reason when it is not that of a source", () => {
    const source = { step: "readings", connection: "press-plc", state: "reading", error: "was away for a moment" };
    const found = findings(
      [agent({}, [status({ state: "failed", error: "the disk is full", sources: [source] })])],
      [],
      now,
    );
    expect(found[0]?.message).toBe("Failed on press-hall: the disk is full");
  });

  it("tells what an agent has lost and what was refused", () => {
    const target = { kind: "agent", id: "a1" };
    const found = findings(
      [agent({ outbox: outbox({ lost: 5, refused: 1, blocked: 1, blocked_by: "the disk" }) })],
      [],
      now,
    );
    expect(found.map((f) => [f.severity, f.target, f.message])).toEqual([
      ["bad", target, "Its flows wait for room: the disk"],
      ["warn", target, "5 insights lost; its page says where."],
      ["warn", target, "1 insight came and could never be stored; its page says why."],
    ]);
  });

  it("leaves revoked agents, older runs and runs before a good one in peace", () => {
    expect(
      findings(
        [agent({ connected: false, revoked_at: at })],
        [
          run({ id: "old", status: "failed", started_at: "2026-03-01T10:00:00Z" }),
          run({ id: "new" }),
          run({ id: "x", flow_id: "f2", status: "failed", started_at: "2026-02-20T10:00:00Z" }),
        ],
        now,
      ),
    ).toEqual([]);
  });
});

describe("findings of many agents", () => {
  const hall = (n: number, over: Partial<Agent> = {}, flows?: FlowStatus[]) =>
    agent({ id: `a${n}`, name: `hall-${n}`, ...over }, flows);
  const numbers = [...Array(5000).keys()];

  it("are told as one where they are the same", () => {
    const found = findings(
      numbers.map((n) => hall(n, { connected: false, clock_skew_seconds: n < 4 ? -7200 : 0 })),
      [],
      now,
    );
    expect(found[0]).toMatchObject({
      severity: "bad",
      subject: "5\u202f000 agents",
      message: "Not connected: hall-0, hall-1, hall-2 and 4\u202f997 more.",
      target: { kind: "agents", state: "away" },
    });
    expect(found.slice(1).map((f) => f.target)).toEqual([0, 1, 2, 3].map((n) => ({ kind: "agent", id: `a${n}` })));
  });

  it("name the flow that fails on them, and why if it is the same reason", () => {
    const failed = (n: number, error: string) => hall(n, {}, [status({ state: "failed", error })]);
    const same = findings(
      numbers.slice(0, 9).map((n) => failed(n, "no route")),
      [],
      now,
    );
    expect(same.map((f) => [f.subject, f.message, f.target])).toEqual([
      ["press-health", "Failed on 9 agents (hall-0, hall-1, hall-2 and 6 more): no route", { kind: "flow", id: "f1" }],
    ]);
    const other = findings(
      numbers.slice(0, 9).map((n) => failed(n, `no route to ${n}`)),
      [],
      now,
    );
    expect(other.map((f) => f.message)).toEqual(["Failed on 9 agents (hall-0, hall-1, hall-2 and 6 more)."]);
  });
});

describe("flowHealth", () => {
  it.each([
    ["running", [agent()]],
    ["running", [agent({}, [status({ state: "completed" })])]],
    ["waiting", [agent({}, [status({ state: "starting" })])]],
    ["failing", [agent({}, [status({ state: "failed" })])]],
    ["failing", [agent({}, [status({ sources: [{ step: "s", connection: "c", state: "failing" }] })])]],
    ["unknown", [agent({ connected: false })]],
    ["unknown", []],
  ] as const)("is %s", (want, agents) => {
    expect(flowHealth(deployed, [...agents])).toBe(want);
  });

  it("is idle without a deployment", () => {
    expect(flowHealth({ ...deployed, deployments: [] }, [agent()])).toBe("idle");
  });
});
