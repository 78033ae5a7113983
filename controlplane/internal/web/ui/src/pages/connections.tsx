import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { agentsQuery, connectionsQuery, connectorsQuery } from "../api/queries";
import type { Agent, Connection } from "../api/types";
import { SourceState } from "../components/state";
import { Ago, Empty, Loaded, Options, PageHead, Panel, Table } from "../components/ui";
import { count, plural } from "../lib/format";
import { usesOf } from "../lib/uses";

export function Connections() {
  const connections = useQuery(connectionsQuery);
  const agents = useQuery(agentsQuery);
  const connectors = useQuery(connectorsQuery);
  const title = (kind: string) => connectors.data?.find((c) => c.kind === kind)?.title ?? kind;
  return (
    <>
      <PageHead title="Connections" />
      <Panel title="Plant systems" aside={connections.data && plural(connections.data.length, "connection")}>
        <Loaded query={connections}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="No connection yet" command="outfeed connection apply -f CONN.yaml">
                A connection says how the agents reach a plant system: a broker, a database, a folder. Write them to a
                file, and apply it:
              </Empty>
            ) : (
              <ConnectionTable connections={list} agents={agents.data} title={title} />
            )
          }
        </Loaded>
      </Panel>
    </>
  );
}

function ConnectionTable(props: {
  connections: Connection[];
  agents: Agent[] | undefined;
  title: (kind: string) => string;
}) {
  return (
    <Table
      label="Plant systems"
      head={
        <>
          <th scope="col">Connection</th>
          <th scope="col">Kind</th>
          <th scope="col">Options</th>
          <th scope="col">Used by</th>
          <th scope="col">Changed</th>
        </>
      }
    >
      {props.connections.map((connection) => (
        <tr key={connection.id}>
          <td className="font-medium whitespace-nowrap">{connection.name}</td>
          <td className="whitespace-nowrap">{props.title(connection.kind)}</td>
          <td className="min-w-56">
            <Options options={connection.options} secrets={connection.secret_names} />
          </td>
          <td className="min-w-64">{props.agents ? <Uses name={connection.name} agents={props.agents} /> : "…"}</td>
          <td className="whitespace-nowrap">
            <Ago time={connection.updated_at} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** How many uses of a connection are shown before a click, and how many more after each; those that fail come first. */
const shownUses = 5;
const moreUses = 100;

function Uses({ name, agents }: { name: string; agents: Agent[] }) {
  const [shown, setShown] = useState(shownUses);
  const uses = useMemo(() => usesOf(name, agents), [name, agents]);
  if (uses.length === 0) return <span className="text-muted">no running flow</span>;
  return (
    <>
      <ul className="space-y-1.5">
        {uses.slice(0, shown).map((use) => (
          <li key={`${use.agent.id}/${use.flowId}/${use.step}`}>
            <div className="flex flex-wrap items-center gap-x-2">
              <Link to="/flows/$flow" params={{ flow: use.flowId }} className="link">
                {use.flowName}
              </Link>
              <span className="text-muted">on</span>
              <Link to="/agents/$agent" params={{ agent: use.agent.id }} className="link">
                {use.agent.name}
              </Link>
              <SourceState state={use.state} />
            </div>
            {use.error && <p className="text-sm break-words text-bad">{use.error}</p>}
          </li>
        ))}
      </ul>
      {uses.length > shown && (
        <button type="button" className="link mt-1.5" onClick={() => setShown((n) => n + moreUses)}>
          and {count(uses.length - shown)} more
        </button>
      )}
    </>
  );
}
