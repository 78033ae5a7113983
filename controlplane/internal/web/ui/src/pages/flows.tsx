import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { agentsQuery, flowsQuery } from "../api/queries";
import type { Agent, Flow } from "../api/types";
import { HealthDot } from "../components/state";
import { Ago, Badge, Empty, Loaded, PageHead, Panel, Table } from "../components/ui";
import { failureReason, flowHealth, isFailing } from "../lib/attention";
import { plural } from "../lib/format";

export function Flows() {
  const flows = useQuery(flowsQuery);
  const agents = useQuery(agentsQuery);
  return (
    <>
      <PageHead title="Flows" />
      <Panel title="All flows" aside={flows.data && plural(flows.data.length, "flow")}>
        <Loaded query={flows}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="No flow yet" command={"outfeed flow apply my-flow.yaml"}>
                A flow says what to read in the plant and which insights leave it. Write one as YAML and save it:
              </Empty>
            ) : (
              <FlowTable flows={list} agents={agents.data} />
            )
          }
        </Loaded>
      </Panel>
    </>
  );
}

function FlowTable({ flows, agents }: { flows: Flow[]; agents: Agent[] | undefined }) {
  return (
    <Table
      label="All flows"
      head={
        <>
          <th scope="col">Flow</th>
          <th scope="col">State</th>
          <th scope="col">Runs on</th>
          <th scope="col">Version</th>
          <th scope="col">Changed</th>
        </>
      }
    >
      {flows.map((flow) => (
        <tr key={flow.id}>
          <td className="min-w-48">
            <Link to="/flows/$flow" params={{ flow: flow.id }} className="link">
              {flow.name}
            </Link>
            <div className="text-sm text-muted">{flow.description}</div>
          </td>
          <td>
            <HealthDot health={agents && flowHealth(flow, agents)} />
            <Reasons flow={flow} agents={agents ?? []} />
          </td>
          <td className="min-w-32">
            {flow.deployments.length === 0 ? (
              <span className="text-muted">no agent</span>
            ) : (
              plural(flow.deployments.length, "agent")
            )}
          </td>
          <td className="whitespace-nowrap">
            <VersionText flow={flow} />
          </td>
          <td className="whitespace-nowrap">
            <Ago time={flow.updated_at} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** How many agents that fail are named. */
const shownReasons = 3;

function Reasons({ flow, agents }: { flow: Flow; agents: Agent[] }) {
  const reasons = agents.flatMap((agent) =>
    (agent.status?.flows ?? [])
      .filter((status) => status.flow_id === flow.id && isFailing(status))
      .map((status) => ({ agent: agent.name, reason: failureReason(status) })),
  );
  return (
    <>
      {reasons.slice(0, shownReasons).map(({ agent, reason }) => (
        <p key={agent} className="min-w-48 text-sm break-words text-bad">
          {agent}: {reason || "no reason given"}
        </p>
      ))}
      {reasons.length > shownReasons && (
        <p className="text-sm text-bad">and on {plural(reasons.length - shownReasons, "more agent")}</p>
      )}
    </>
  );
}

export function VersionText({ flow }: { flow: Flow }) {
  if (flow.published_version === 0) return <Badge tone="plain">draft {flow.latest_version}</Badge>;
  return (
    <span className="flex items-center gap-1.5">
      {flow.published_version}
      {flow.latest_version > flow.published_version && <Badge tone="plain">draft {flow.latest_version}</Badge>}
    </span>
  );
}
