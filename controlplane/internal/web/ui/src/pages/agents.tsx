import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { agentsQuery } from "../api/queries";
import type { Agent } from "../api/types";
import { AddAgent } from "../components/addagent";
import { IdentityBadges } from "../components/agentidentity";
import { OutboxBadges } from "../components/outbox";
import { AgentState } from "../components/state";
import { Ago, Badge, Empty, Labels, Loaded, PageHead, Panel, RestButton, Select, Table } from "../components/ui";
import { type AgentStateFilter, agentStates, findAgents } from "../lib/agents";
import { isFailing } from "../lib/attention";
import { bytes, count, plural } from "../lib/format";
import { usePart } from "../lib/paging";

/** How many agents are shown at first, and from how many on they can be searched. */
const shownAgents = 100;
const searchable = 8;

const stateTexts: Record<AgentStateFilter, string> = {
  connected: "connected",
  away: "not connected",
  trouble: "with trouble",
  revoked: "revoked",
};

export function Agents() {
  const agents = useQuery(agentsQuery);
  const [adding, setAdding] = useState(false);
  const search = useSearch({ from: "/agents" });
  const all = agents.data?.length ?? 0;
  const filtered = Boolean(search.find || search.state);
  return (
    <>
      <PageHead title="Agents">
        {(all >= searchable || filtered) && <Search />}
        <button type="button" className="button button-primary" onClick={() => setAdding(true)}>
          Add an agent
        </button>
      </PageHead>
      {adding && <AddAgent onClose={() => setAdding(false)} />}
      <Panel title="Installed agents" aside={agents.data && plural(agents.data.length, "agent")}>
        <Loaded query={agents}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="No agent yet" command="outfeed agent token">
                Press “Add an agent” for a one-use token and the commands to run on the plant's machine, or make a token
                on the command line:
              </Empty>
            ) : (
              <Found agents={list} find={search.find ?? ""} state={search.state} />
            )
          }
        </Loaded>
      </Panel>
    </>
  );
}

function Search() {
  const search = useSearch({ from: "/agents" });
  const navigate = useNavigate({ from: "/agents" });
  const set = (change: { find?: string | undefined; state?: AgentStateFilter | undefined }) =>
    void navigate({ search: (was) => ({ ...was, ...change }), replace: true });
  return (
    <>
      <input
        type="search"
        aria-label="Find agents"
        placeholder="Name, host or label"
        className="field w-48"
        autoComplete="off"
        spellCheck={false}
        value={search.find ?? ""}
        onChange={(e) => set({ find: e.target.value || undefined })}
      />
      <Select
        label="Show"
        value={search.state ?? ""}
        options={[["", "all"], ...agentStates.map((state) => [state, stateTexts[state]] as const)]}
        onChange={(state) => set({ state: agentStates.find((s) => s === state) })}
      />
    </>
  );
}

function Found(props: { agents: Agent[]; find: string; state: AgentStateFilter | undefined }) {
  const found = findAgents(props.agents, props.find, props.state);
  const filtered = found.length < props.agents.length;
  if (found.length === 0) return <Empty title="No agent matches">Search for something else, or show all.</Empty>;
  return (
    <>
      {filtered && (
        <p className="border-b border-line px-3 py-2 text-sm text-muted">
          {count(found.length)} of {plural(props.agents.length, "agent")} {found.length === 1 ? "matches" : "match"}
        </p>
      )}
      <AgentTable key={`${props.find}/${props.state}`} agents={found} />
    </>
  );
}

function AgentTable({ agents }: { agents: Agent[] }) {
  const part = usePart(agents, shownAgents);
  return (
    <>
      <AgentRows agents={part.items} />
      <RestButton rest={part.rest} onMore={part.more} />
    </>
  );
}

function AgentRows({ agents }: { agents: readonly Agent[] }) {
  return (
    <Table
      label="Installed agents"
      head={
        <>
          <th scope="col">Agent</th>
          <th scope="col">State</th>
          <th scope="col">Flows</th>
          <th scope="col" className="number">
            Waiting to be sent
          </th>
          <th scope="col">Labels</th>
          <th scope="col">Version</th>
          <th scope="col">Last seen</th>
        </>
      }
    >
      {agents.map((agent) => (
        <tr key={agent.id}>
          <td className="whitespace-nowrap">
            <Link to="/agents/$agent" params={{ agent: agent.id }} className="link">
              {agent.name}
            </Link>
            <div className="text-sm text-muted">{agent.hostname}</div>
          </td>
          <td>
            <AgentState agent={agent} />
            {!agent.revoked_at && (
              <span className="mt-1 flex flex-wrap gap-1 empty:hidden">
                <OutboxBadges agent={agent} />
                <IdentityBadges agent={agent} />
              </span>
            )}
          </td>
          <td>
            <FlowSummary agent={agent} />
          </td>
          <td className="number">
            {agent.outbox.reported_at ? count(agent.outbox.waiting_records) : "–"}
            {agent.outbox.reported_at && <div className="text-sm text-muted">{bytes(agent.outbox.waiting_bytes)}</div>}
          </td>
          <td>
            <Labels labels={agent.labels} />
          </td>
          <td className="whitespace-nowrap">
            {agent.version || "–"}
            <div className="text-sm text-muted">
              {agent.os}/{agent.arch}
            </div>
          </td>
          <td className="whitespace-nowrap">
            <Ago time={agent.last_seen_at} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function FlowSummary({ agent }: { agent: Agent }) {
  const flows = agent.status?.flows ?? [];
  if (agent.status?.bundle_error) return <Badge tone="bad">Configuration refused</Badge>;
  if (flows.length === 0) return <span className="text-muted">none</span>;
  const failing = flows.filter(isFailing).length;
  return (
    <span className="flex flex-wrap items-center gap-1.5">
      {count(flows.length)}
      {failing > 0 && <Badge tone="bad">{count(failing)} failing</Badge>}
    </span>
  );
}
