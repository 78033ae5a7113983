import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { agentsQuery, runQuery } from "../api/queries";
import type { Run } from "../api/types";
import { runLength } from "../components/runtable";
import { RunStatus } from "../components/state";
import { Empty, ErrorNote, Facts, Loaded, PageHead, Panel, Table, Time, Troubled } from "../components/ui";
import { bytes, count } from "../lib/format";

export function RunDetail() {
  const { run: id } = useParams({ from: "/runs/$run" });
  const run = useQuery(runQuery(id));
  return (
    <Loaded query={run} page="Run">
      {(data) => <Detail run={data} />}
    </Loaded>
  );
}

function Detail({ run }: { run: Run }) {
  const agents = useQuery(agentsQuery);
  const agent = agents.data?.find((a) => a.id === run.agent_id);
  return (
    <>
      <PageHead title={`Run of ${run.flow_name}`} note={<RunStatus status={run.status} />}>
        <Link to="/flows/$flow" params={{ flow: run.flow_id }} className="button">
          The flow
        </Link>
      </PageHead>
      {run.error && <ErrorNote error={new Error(run.error)} />}
      <Panel title="Summary">
        <Facts
          facts={[
            ["Started", <Time key="started" time={run.started_at} />],
            ["Ended", <Time key="ended" time={run.ended_at} />],
            ["Took", runLength(run)],
            [
              "Agent",
              <Link key="agent" to="/agents/$agent" params={{ agent: run.agent_id }} className="link">
                {agent?.name ?? run.agent_id}
              </Link>,
            ],
            ["Version", String(run.version)],
            ["Records read", `${count(run.records_read)} (${bytes(run.bytes_read)})`],
            ["Insights", count(run.insights)],
            ["Failed records", <Troubled key="failed" n={run.failed} />],
            ["Late records", <Troubled key="late" n={run.late} tone="warn" />],
          ]}
        />
      </Panel>
      <Panel title="Rows per step">
        {run.steps.length === 0 ? (
          <Empty title="The agent counted no steps in this run" />
        ) : (
          <Steps steps={run.steps} />
        )}
      </Panel>
      <Panel
        title="Failing records and notes"
        aside={run.failed > 0 && `${count(run.sample.length)} shown, ${count(run.failed)} failed`}
      >
        {run.sample.length === 0 ? (
          <p className="px-3 py-4 text-muted">
            {run.failed === 0 ? "Every record could be used." : "The plant does not let samples leave."}
          </p>
        ) : (
          <Sample run={run} />
        )}
      </Panel>
    </>
  );
}

function Steps({ steps }: { steps: Run["steps"] }) {
  const troubles = (
    [
      ["Failed", "rows_failed", "bad"],
      ["Late", "rows_late", "warn"],
      ["Outside shifts", "rows_outside", "warn"],
    ] as const
  ).filter(([, of]) => steps.some((step) => step[of] > 0));
  const most = Math.max(1, ...steps.map((step) => Math.max(step.rows_in, step.rows_out)));
  return (
    <Table
      label="Rows per step"
      head={
        <>
          <th scope="col">Step</th>
          <th scope="col" className="number">
            Rows in
          </th>
          <th scope="col" className="number">
            Rows out
          </th>
          {troubles.map(([title]) => (
            <th key={title} scope="col" className="number">
              {title}
            </th>
          ))}
          <th scope="col" className="w-1/2">
            <span className="sr-only">Share</span>
          </th>
        </>
      }
    >
      {steps.map((step) => (
        <tr key={step.step}>
          <td className="min-w-32 font-medium wrap-anywhere">{step.step}</td>
          <td className="number">{count(step.rows_in)}</td>
          <td className="number">{count(step.rows_out)}</td>
          {troubles.map(([title, of, tone]) => (
            <td key={title} className="number">
              <Troubled n={step[of]} tone={tone} />
            </td>
          ))}
          <td className="min-w-40 align-middle">
            <svg aria-hidden="true" viewBox="0 0 100 8" preserveAspectRatio="none" className="h-2 w-full">
              <rect width={(step.rows_in / most) * 100} height="8" className="fill-line" />
              <rect width={(step.rows_out / most) * 100} height="8" className="fill-accent" />
            </svg>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Sample({ run }: { run: Run }) {
  return (
    <Table
      label="Failing records and notes"
      head={
        <>
          <th scope="col">Step</th>
          <th scope="col">Where</th>
          <th scope="col">Reason</th>
          <th scope="col">Record</th>
        </>
      }
    >
      {run.sample.map((failed, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a sample never changes
        <tr key={i}>
          <td className="whitespace-nowrap">{failed.step}</td>
          <td className="min-w-32 break-words">{failed.where}</td>
          <td className="min-w-48">{failed.reason}</td>
          <td className="min-w-56 font-mono text-sm break-all">{failed.record}</td>
        </tr>
      ))}
    </Table>
  );
}
