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
  return (
    <>
      <PageHead title="Agents">
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

function Search({ found }: { found: string }) {
  const search = useSearch({ from: "/agents" });
  const navigate = useNavigate({ from: "/agents" });
  const set = (change: { find?: string | undefined; state?: AgentStateFilter | undefined }) =>
    void navigate({ search: (was) => ({ ...was, ...change }), replace: true });
  return (
    <div className="flex flex-wrap items-center gap-x-4 gap-y-2 border-b border-line p-3">
      <input
        type="search"
        aria-label="Find agents"
        placeholder="Name, host, label or system"
        className="field min-w-0 grow sm:max-w-80"
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
      <p role="status" className="text-sm text-muted sm:ml-auto">
        {found}
      </p>
    </div>
  );
}

function Found(props: { agents: Agent[]; find: string; state: AgentStateFilter | undefined }) {
  const { agents, find, state } = props;
  const filtered = find !== "" || state !== undefined;
  const found = findAgents(agents, find, state);
  return (
    <>
      {(agents.length >= searchable || filtered) && (
        <Search found={filtered ? `${count(found.length)} of ${plural(agents.length, "agent")}` : ""} />
      )}
      {found.length === 0 ? (
        <Empty title="No agent matches">Search for something else, or show all.</Empty>
      ) : (
        <AgentTable key={`${find}/${state}`} agents={found} />
      )}
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
            {agent.outbox.reported_at && (
              <div className="text-sm text-muted">
                {bytes(agent.outbox.waiting_bytes)}
                {!agent.connected && (
                  <>
                    , <Ago time={agent.outbox.reported_at} />
                  </>
                )}
              </div>
            )}
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
  const all = flows.length + (agent.status?.flows_left_out ?? 0);
  if (all === 0) return <span className="text-muted">none</span>;
  const failing = flows.filter(isFailing).length;
  return (
    <span className="flex flex-wrap items-center gap-1.5">
      {count(all)}
      {failing > 0 && <Badge tone="bad">{count(failing)} failing</Badge>}
    </span>
  );
}
