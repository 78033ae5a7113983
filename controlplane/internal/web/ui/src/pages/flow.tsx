import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { agentQuery, agentsQuery, flowQuery, flowVersionsQuery, runsQuery } from "../api/queries";
import type { Agent, Deployment, EgressColumn, Flow, FlowVersion, FlowWrite } from "../api/types";
import { Definition } from "../components/definition";
import { FlowGraph } from "../components/flowgraph";
import { RunTable } from "../components/runtable";
import { FlowStateBadge, HealthDot } from "../components/state";
import {
  Ago,
  Badge,
  CopyButton,
  Dot,
  Empty,
  Loaded,
  Names,
  Options,
  PageHead,
  Panel,
  RestButton,
  Select,
  Table,
} from "../components/ui";
import { failureReason, flowHealth, isCut } from "../lib/attention";
import { byId } from "../lib/byid";
import { usePart } from "../lib/paging";

export function FlowDetail() {
  const { flow: ref } = useParams({ from: "/flows/$flow" });
  const flow = useQuery(flowQuery(ref));
  return (
    <Loaded query={flow} page="Flow">
      {(data) => <Detail flow={data} />}
    </Loaded>
  );
}

function Detail({ flow }: { flow: Flow }) {
  const versions = useQuery(flowVersionsQuery(flow.id));
  const agents = useQuery(agentsQuery);
  const runs = useQuery(runsQuery({ flow: flow.id }, 10));
  const [chosen, setChosen] = useState<number | undefined>(undefined);
  const number = chosen ?? (flow.published_version || flow.latest_version);
  return (
    <>
      <PageHead
        title={flow.name}
        note={
          <>
            <p>{flow.description}</p>
            <div className="mt-1 text-text">
              <HealthDot health={agents.data && flowHealth(flow, agents.data)} />
            </div>
          </>
        }
      >
        <Select
          label="Version"
          value={String(number)}
          options={(versions.data ?? []).map((v) => [String(v.version), versionName(v)] as const)}
          onChange={(value) => setChosen(Number(value))}
        />
      </PageHead>
      <Panel title="Where it runs">
        <Deployments flow={flow} agents={agents.data} />
      </Panel>
      <Loaded query={versions}>
        {(list) => {
          const version = list.find((v) => v.version === number) ?? list[0];
          return version ? <Version version={version} /> : <Empty title="This flow has no version" />;
        }}
      </Loaded>
      <Panel title="Versions">
        <Loaded query={versions}>{(list) => <Versions versions={list} flow={flow} />}</Loaded>
      </Panel>
      <Panel
        title="Latest runs"
        aside={
          <Link to="/runs" search={{ flow: flow.id }} className="link">
            All runs
          </Link>
        }
      >
        <Loaded query={runs}>
          {(list) =>
            list.length === 0 ? <Empty title="No run has been reported yet" /> : <RunTable runs={list} of="flow" />
          }
        </Loaded>
      </Panel>
    </>
  );
}

const versionName = (v: FlowVersion) => `${v.version}${v.published_at ? "" : " (draft)"}`;

function Version({ version }: { version: FlowVersion }) {
  return (
    <>
      <Panel title="Steps">
        <FlowGraph definition={version.definition} />
      </Panel>
      <Panel title="What leaves the plant" aside="the egress manifest">
        <Egress columns={version.egress.columns} />
      </Panel>
      {version.writes.length > 0 && (
        <Panel title="What is written in the plant" aside="only where the agent's own configuration allows it">
          <Writes writes={version.writes} />
        </Panel>
      )}
      <Panel title={`Definition, version ${versionName(version)}`} aside={<CopyButton text={version.definition} />}>
        <Definition text={version.definition} />
      </Panel>
    </>
  );
}

function Egress({ columns }: { columns: EgressColumn[] }) {
  if (columns.length === 0) return <Empty title="Nothing leaves the plant with this version" />;
  return (
    <Table
      label="What leaves the plant"
      head={
        <>
          <th scope="col">Insight</th>
          <th scope="col">Column</th>
          <th scope="col">Type</th>
          <th scope="col">Kind</th>
          <th scope="col">Made from</th>
        </>
      }
    >
      {columns.map((column, i) => (
        <tr key={`${column.insight}/${column.column}`}>
          <td className="min-w-44 wrap-anywhere">
            <span className={column.insight === columns[i - 1]?.insight ? "sr-only" : ""}>{column.insight}</span>
          </td>
          <td className="min-w-64 font-medium wrap-anywhere">{column.column}</td>
          <td className="text-muted">{column.type}</td>
          <td>{column.aggregated ? <Badge tone="ok">Aggregated</Badge> : <Badge tone="warn">Raw</Badge>}</td>
          <td className="min-w-48 wrap-anywhere text-muted">
            <Names names={column.sources} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Writes({ writes }: { writes: FlowWrite[] }) {
  return (
    <Table
      label="What is written in the plant"
      head={
        <>
          <th scope="col">Step</th>
          <th scope="col">Connection</th>
          <th scope="col">Columns</th>
          <th scope="col">Options</th>
        </>
      }
    >
      {writes.map((write) => (
        <tr key={write.step}>
          <td className="min-w-24 font-medium wrap-anywhere">{write.step}</td>
          <td className="min-w-24 wrap-anywhere">{write.connection}</td>
          <td className="min-w-48 wrap-anywhere">
            <Names names={write.columns} />
          </td>
          <td className="min-w-48">
            <Options options={write.with} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** How many deployments are shown at first. */
const shownDeployments = 50;

function Deployments({ flow, agents }: { flow: Flow; agents: Agent[] | undefined }) {
  const part = usePart(flow.deployments, shownDeployments);
  if (flow.deployments.length === 0) {
    const command =
      flow.published_version === 0
        ? `outfeed flow publish ${flow.name}\noutfeed flow deploy ${flow.name} AGENT`
        : `outfeed flow deploy ${flow.name} AGENT`;
    return (
      <Empty title="It runs nowhere yet" command={command}>
        {flow.published_version === 0 ? "Publish it, then deploy it to an agent:" : "Deploy it to an agent:"}
      </Empty>
    );
  }
  return (
    <>
      <DeploymentRows flow={flow} deployments={part.items} agents={agents} />
      <RestButton rest={part.rest} onMore={part.more} />
    </>
  );
}

function DeploymentRows(props: { flow: Flow; deployments: readonly Deployment[]; agents: Agent[] | undefined }) {
  const { flow, deployments, agents } = props;
  return (
    <Table
      label="Where it runs"
      head={
        <>
          <th scope="col">Agent</th>
          <th scope="col">Version</th>
          <th scope="col">State</th>
          <th scope="col">Deployed</th>
        </>
      }
    >
      {deployments.map((deployment) => {
        const agent = agents && byId(agents).get(deployment.agent_id);
        return (
          <tr key={deployment.id}>
            <td className="whitespace-nowrap">
              <Link to="/agents/$agent" params={{ agent: deployment.agent_id }} className="link">
                {agents ? (agent?.name ?? deployment.agent_id) : "…"}
              </Link>
            </td>
            <td>{deployment.version}</td>
            <td className="min-w-56">
              {agents ? <DeploymentState agent={agent} flow={flow.id} version={deployment.version} /> : "…"}
            </td>
            <td className="whitespace-nowrap">
              <Ago time={deployment.created_at} />
            </td>
          </tr>
        );
      })}
    </Table>
  );
}

function DeploymentState({ agent, flow, version }: { agent: Agent | undefined; flow: string; version: number }) {
  const status = agent?.status?.flows.find((f) => f.flow_id === flow);
  if (!agent?.connected) return <Dot tone="warn">Agent not connected</Dot>;
  if (!status) return <Dot tone="accent">On its way to the agent</Dot>;
  const reason = failureReason(status);
  return (
    <>
      <span className="flex flex-wrap items-center gap-2">
        <FlowStateBadge status={status} />
        {status.version !== version && <Badge tone="warn">still at version {status.version}</Badge>}
      </span>
      {reason && <Reason key={reason} agent={agent.id} flow={flow} reason={reason} />}
    </>
  );
}

/** Why a flow fails on an agent: what the list of agents has of it, and the whole once somebody asks for it. */
function Reason({ agent, flow, reason }: { agent: string; flow: string; reason: string }) {
  const [open, setOpen] = useState(false);
  const whole = useQuery({ ...agentQuery(agent), enabled: open });
  const status = whole.data?.status?.flows.find((f) => f.flow_id === flow);
  if (open && status) {
    return (
      <section
        tabIndex={0}
        aria-label="Why it fails"
        className="mt-0.5 max-h-72 max-w-prose overflow-auto text-sm wrap-anywhere whitespace-pre-line text-bad"
      >
        {failureReason(status)}
      </section>
    );
  }
  return (
    <p className="mt-0.5 max-w-prose text-sm wrap-anywhere text-bad">
      {reason}{" "}
      {isCut(reason) && (
        <button type="button" className="link" disabled={open && whole.isPending} onClick={() => setOpen(true)}>
          {open && whole.isPending ? "Loading…" : "Show all of it"}
        </button>
      )}
    </p>
  );
}

function Versions({ versions, flow }: { versions: FlowVersion[]; flow: Flow }) {
  return (
    <Table
      label="Versions"
      head={
        <>
          <th scope="col">Version</th>
          <th scope="col">State</th>
          <th scope="col">Saved</th>
          <th scope="col">By</th>
          <th scope="col">SHA-256</th>
        </>
      }
    >
      {[...versions]
        .sort((a, b) => b.version - a.version)
        .map((v) => (
          <tr key={v.version}>
            <td>{v.version}</td>
            <td>
              <VersionState version={v} flow={flow} />
            </td>
            <td className="whitespace-nowrap">
              <Ago time={v.created_at} />
            </td>
            <td>{v.created_by}</td>
            <td className="font-mono text-sm text-muted" title={v.sha256}>
              {v.sha256.slice(0, 12)}
            </td>
          </tr>
        ))}
    </Table>
  );
}

function VersionState({ version, flow }: { version: FlowVersion; flow: Flow }) {
  if (flow.deployments.some((d) => d.version === version.version)) return <Badge tone="ok">Deployed</Badge>;
  return version.published_at ? <Badge tone="accent">Published</Badge> : <Badge tone="plain">Draft</Badge>;
}
