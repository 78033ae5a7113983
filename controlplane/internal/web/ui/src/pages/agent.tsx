import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { agentQuery } from "../api/queries";
import type { Agent, FlowStatus } from "../api/types";
import { IdentityNotes, KeysFact, LockBanner } from "../components/agentidentity";
import { DamagePanel, SetAsidePanel } from "../components/damage";
import { MissingPanel } from "../components/missing";
import { OutboxPanel, RefusedPanel } from "../components/outbox";
import { AgentState, FlowStateBadge, SourceState } from "../components/state";
import {
  Ago,
  Badge,
  Empty,
  ErrorNote,
  Facts,
  Labels,
  Loaded,
  PageHead,
  Panel,
  RestButton,
  Table,
  Time,
} from "../components/ui";
import { isFailing } from "../lib/attention";
import { parseTime, plural } from "../lib/format";
import { clockText, isSkewed } from "../lib/identity";
import { usePart } from "../lib/paging";

export function AgentDetail() {
  const { agent: ref } = useParams({ from: "/agents/$agent" });
  const agent = useQuery(agentQuery(ref));
  return (
    <Loaded query={agent} page="Agent">
      {(data) => <Detail agent={data} />}
    </Loaded>
  );
}

function Detail({ agent }: { agent: Agent }) {
  const { status } = agent;
  const revoked = parseTime(agent.revoked_at) !== undefined;
  return (
    <>
      <PageHead title={agent.name} note={<AgentState agent={agent} />}>
        <Link to="/runs" search={{ agent: agent.id }} className="button">
          Runs of this agent
        </Link>
      </PageHead>
      {agent.lock && <LockBanner agent={agent} lock={agent.lock} />}
      {revoked && <RevokedNote agent={agent} />}
      <IdentityNotes agent={agent} />
      {status?.bundle_error && !revoked && (
        <div className="-mx-3 -mt-3 mb-1">
          <ErrorNote
            error={
              new Error(
                `The newest configuration is not in use, and the agent goes on as before: ${status.bundle_error}`,
              )
            }
          />
        </div>
      )}
      <Panel title="Machine">
        <Facts
          facts={[
            ["Last seen", <Ago key="seen" time={agent.last_seen_at} />],
            ["Host", agent.hostname || "–"],
            ["System", `${agent.os}/${agent.arch}`],
            ["Version", agent.version || "–"],
            ["Labels", <Labels key="labels" labels={agent.labels} />],
            ...(isSkewed(agent) && !revoked
              ? [
                  [
                    "Clock",
                    <Badge key="clock" tone="warn">
                      {clockText(agent.clock_skew_seconds)}
                    </Badge>,
                  ] as [string, React.ReactNode],
                ]
              : []),
            ...(agent.lock || revoked
              ? []
              : [["Keys changed", <KeysFact key="keys" agent={agent} />] as [string, React.ReactNode]]),
            ["Enrolled", <Time key="created" time={agent.created_at} />],
            ...(revoked
              ? [["Revoked", <Time key="revoked" time={agent.revoked_at} />] as [string, React.ReactNode]]
              : []),
            ["Configuration", <Configuration key="configuration" agent={agent} />],
            ["Reads", agent.connector_kinds.join(", ") || "–"],
          ]}
        />
        <p className="border-t border-line px-3 py-2 text-sm break-all text-muted">
          Key fingerprint <span className="font-mono">{agent.fingerprint}</span>
        </p>
      </Panel>
      <OutboxPanel agent={agent} />
      <DamagePanel agent={agent} />
      <SetAsidePanel agent={agent} />
      <MissingPanel agent={agent} />
      <RefusedPanel agent={agent} />
      <Panel title="Flows on this agent">
        {status && status.flows.length > 0 ? (
          <FlowParts flows={status.flows} />
        ) : revoked ? (
          <Empty title="No flow ran here when the agent was revoked" />
        ) : (
          <Empty title="No flow runs here" command={`outfeed flow deploy FLOW ${agent.name}`}>
            Deploy a published flow to this agent:
          </Empty>
        )}
      </Panel>
    </>
  );
}

/** Which configuration the agent runs, and whether that is the one that it shall run. */
function Configuration({ agent }: { agent: Agent }) {
  const { applied_serial: applied, desired_serial: desired } = agent;
  if (parseTime(agent.revoked_at)) return `${applied}, the last one`;
  if (agent.status?.bundle_error) return <Badge tone="bad">{`${desired} refused`}</Badge>;
  if (applied !== desired) return <Badge tone="warn">{`at ${applied}, shall be ${desired}`}</Badge>;
  return `up to date (${applied})`;
}

function RevokedNote({ agent }: { agent: Agent }) {
  const waiting = agent.outbox.waiting_records;
  return (
    <section aria-label="Revoked" className="mb-4 rounded-md border border-line-strong bg-surface px-4 py-3 text-muted">
      <p className="font-medium text-text">This agent was revoked and never connects again.</p>
      <p className="mt-0.5">
        What follows is what it said last. {waiting > 0 && `${plural(waiting, "insight")} waited then, and `}
        {waiting > 0 ? "stay" : "What still waited stays"} in its data directory. To use the machine again, enrol it
        anew.
      </p>
    </section>
  );
}

/** Whether a flow's error is one that stands beside its source. */
const isOfSource = ({ error, sources }: FlowStatus) => sources.some((s) => s.error && error?.includes(s.error));

/** How many flows are shown at first, those that fail before the others. */
const shownFlows = 50;

function FlowParts({ flows }: { flows: readonly FlowStatus[] }) {
  const sorted = [...flows].sort((a, b) => Number(isFailing(b)) - Number(isFailing(a)));
  const part = usePart(sorted, shownFlows);
  return (
    <>
      {part.items.map((flow) => (
        <FlowPart key={flow.deployment_id} flow={flow} />
      ))}
      <RestButton rest={part.rest} onMore={part.more} />
    </>
  );
}

function FlowPart({ flow }: { flow: FlowStatus }) {
  return (
    <div className="border-b border-line last:border-b-0">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1 px-3 pt-2.5 pb-1.5">
        <Link to="/flows/$flow" params={{ flow: flow.flow_id }} className="link">
          {flow.name}
        </Link>
        <span className="text-muted">
          version {flow.version}
          {flow.set_back_from ? `, set back from ${flow.set_back_from}` : ""}
        </span>
        <FlowStateBadge status={flow} />
        <span className="text-sm text-muted">
          since <Ago time={flow.since} />
        </span>
      </div>
      {flow.error && (flow.set_back_from || !isOfSource(flow)) && (
        <p className="px-3 pb-2 break-words text-bad">{flow.error}</p>
      )}
      {flow.sources.length > 0 && (
        <Table
          label={`Sources of ${flow.name}`}
          head={
            <>
              <th scope="col" className="w-1/6">
                Source
              </th>
              <th scope="col" className="w-1/6">
                Connection
              </th>
              <th scope="col" className="w-1/8">
                State
              </th>
              <th scope="col" className="w-1/8">
                Last record
              </th>
              <th scope="col">Error</th>
            </>
          }
        >
          {flow.sources.map((source) => (
            <tr key={source.step}>
              <td>{source.step}</td>
              <td>{source.connection}</td>
              <td>
                <SourceState state={source.state} />
              </td>
              <td className="whitespace-nowrap">
                <Ago time={source.last_record} />
              </td>
              <td className="min-w-48 break-words">
                {source.error ? (
                  <span className="text-bad">{source.error}</span>
                ) : (
                  <span className="text-muted">–</span>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </div>
  );
}
