import { describe, expect, it } from "vitest";
import type { Agent } from "../api/types";
import { type AgentStateFilter, findAgents } from "./agents";
import { byId } from "./byid";
import { outbox } from "./outbox.sample";

function agent(name: string, over: Partial<Agent> = {}): Agent {
  const at = "2026-03-01T11:00:00Z";
  return {
    id: name,
    workspace_id: "w",
    name,
    labels: {},
    hostname: "h",
    os: "linux",
    arch: "amd64",
    version: "1.2.3",
    fingerprint: "ff",
    created_at: at,
    connected: true,
    last_seen_at: at,
    clock_skew_seconds: 0,
    desired_serial: 1,
    applied_serial: 1,
    outbox: outbox(),
    connector_kinds: [],
    ...over,
  };
}

const all = [
  agent("press", { labels: { site: "Berlin", line: "3" } }),
  agent("lathe", { hostname: "EDGE-7", connected: false }),
  agent("saw", { os: "windows", outbox: outbox({ lost: 1 }), labels: { site: "Bern" } }),
  agent("drill", { clock_skew_seconds: 60 }),
  agent("old", { connected: false, revoked_at: "2026-03-01T11:00:00Z", outbox: outbox({ lost: 1 }) }),
];

const names = (text: string, state?: AgentStateFilter) => findAgents(all, text, state).map((a) => a.name);

describe("finding agents", () => {
  it("looks for each word in name, host, labels, version and system", () => {
    expect(names("")).toHaveLength(5);
    expect(names("site=ber")).toEqual(["press", "saw"]);
    expect(names("  site=ber windows")).toEqual(["saw"]);
    expect(names("edge")).toEqual(["lathe"]);
    expect(names("1.2.3 nothing")).toEqual([]);
  });

  it("tells states apart", () => {
    expect(names("", "connected")).toEqual(["press", "saw", "drill"]);
    expect(names("", "away")).toEqual(["lathe"]);
    expect(names("", "trouble")).toEqual(["saw", "drill"]);
    expect(names("", "revoked")).toEqual(["old"]);
  });

  it("keeps an index of each list", () => {
    expect(byId(all).get("saw")).toBe(all[2]);
    expect(byId(all)).toBe(byId(all));
  });
});
