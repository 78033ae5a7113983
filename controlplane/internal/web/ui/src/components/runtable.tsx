import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { agentsQuery } from "../api/queries";
import type { Run } from "../api/types";
import { byId } from "../lib/byid";
import { bytes, count, duration, parseTime } from "../lib/format";
import { RunStatus } from "./state";
import { Table, Time } from "./ui";

/** How long a run took, or has taken. */
export function runLength(run: Run): string {
  const started = parseTime(run.started_at);
  const ended = parseTime(run.ended_at);
  return started && ended ? duration(ended.getTime() - started.getTime()) : "–";
}

export function RunTable({ runs, of }: { runs: Run[]; of: "all" | "flow" }) {
  const agents = useQuery(agentsQuery);
  const agentName = (id: string) => (agents.data ? (byId(agents.data).get(id)?.name ?? id.slice(0, 8)) : "…");
  return (
    <Table
      label="Runs"
      head={
        <>
          <th scope="col">Started</th>
          {of === "all" && <th scope="col">Flow</th>}
          <th scope="col">Agent</th>
          <th scope="col">Status</th>
          <th scope="col" className="number">
            Took
          </th>
          <th scope="col" className="number">
            Read
          </th>
          <th scope="col" className="number">
            Insights
          </th>
          <th scope="col" className="number">
            Failed
          </th>
          <th scope="col" className="number">
            Late
          </th>
        </>
      }
    >
      {runs.map((run) => (
        <tr key={run.id}>
          <td>
            <Link to="/runs/$run" params={{ run: run.id }} className="link">
              <Time time={run.started_at} />
            </Link>
          </td>
          {of === "all" && (
            <td className="whitespace-nowrap">
              <Link to="/flows/$flow" params={{ flow: run.flow_id }} className="link">
                {run.flow_name}
              </Link>
              <span className="text-muted"> v{run.version}</span>
            </td>
          )}
          <td className="whitespace-nowrap">{agentName(run.agent_id)}</td>
          <td className="min-w-24">
            <RunStatus status={run.status} />
            {run.error && (
              <p className="mt-0.5 line-clamp-2 min-w-56 max-w-96 text-sm wrap-anywhere text-bad" title={run.error}>
                {run.error}
              </p>
            )}
          </td>
          <td className="number">{runLength(run)}</td>
          <td className="number">
            {count(run.records_read)}
            <div className="text-sm text-muted">{bytes(run.bytes_read)}</div>
          </td>
          <td className="number">{count(run.insights)}</td>
          <td className={`number ${run.failed > 0 ? "font-medium text-bad" : ""}`}>{count(run.failed)}</td>
          <td className={`number ${run.late > 0 ? "font-medium text-warn" : ""}`}>{count(run.late)}</td>
        </tr>
      ))}
    </Table>
  );
}
