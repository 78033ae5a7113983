import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { agentsQuery } from "../api/queries";
import type { Agent } from "../api/types";
import { AddAgent } from "../components/addagent";
import { OutboxBadges } from "../components/outbox";
import { AgentState } from "../components/state";
import { Ago, Badge, Empty, Labels, Loaded, PageHead, Panel, Table } from "../components/ui";
import { isFailing } from "../lib/attention";
import { bytes, count, plural } from "../lib/format";

export function Agents() {
  const agents = useQuery(agentsQuery);
  const [adding, setAdding] = useState(false);
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
              <AgentTable agents={list} />
            )
          }
        </Loaded>
      </Panel>
    </>
  );
}

function AgentTable({ agents }: { agents: Agent[] }) {
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
            {!agent.revoked_at && <OutboxBadges agent={agent} />}
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
