import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type ReactNode, useMemo } from "react";
import { agentsQuery, flowsQuery, insightsQuery, runsQuery } from "../api/queries";
import type { Agent, Flow, Insight } from "../api/types";
import { LatestInsights } from "../components/insighttable";
import { Ago, Badge, Empty, ErrorNote, Loaded, Loading, PageHead, Panel, RestButton } from "../components/ui";
import { type Finding, findings, flowHealth } from "../lib/attention";
import { count, parseTime } from "../lib/format";
import { usePart } from "../lib/paging";
import { perMinute } from "../lib/series";
import { useNow } from "../live/clock";

const rateMinutes = 15;

export function Overview() {
  const agents = useQuery(agentsQuery);
  const flows = useQuery(flowsQuery);
  const runs = useQuery(runsQuery({}));
  const insights = useQuery(insightsQuery({ name: undefined, minutes: undefined }));
  const now = useNow();
  const found = useMemo(
    () => findings(agents.data ?? [], runs.data ?? [], new Date(now)),
    [agents.data, runs.data, now],
  );
  return (
    <>
      <PageHead title="Overview" />
      <div className="mb-4 grid gap-3 sm:grid-cols-3">
        <AgentsTile agents={agents.data} />
        <FlowsTile flows={flows.data} agents={agents.data} />
        <RateTile insights={insights.data?.items} now={now} />
      </div>
      {(agents.error ?? runs.error) && <ErrorNote error={agents.error ?? runs.error} />}
      {agents.data && agents.data.length === 0 ? (
        <Panel title="First steps">
          <Empty title="No agent has been added yet">
            <p>An agent runs inside the plant, reads its systems and sends up insights over one outbound connection.</p>
            <p className="mt-3">
              <Link to="/agents" className="button button-primary">
                Add an agent
              </Link>
            </p>
          </Empty>
        </Panel>
      ) : (
        <Panel title="Needs attention" aside={found.length > 0 && count(found.length)}>
          {agents.data && runs.data && <Findings found={found} />}
          {(agents.isPending || runs.isPending) && <Loading />}
        </Panel>
      )}
      <Panel
        title="Latest insights"
        aside={
          <Link to="/insights" className="link">
            All insights
          </Link>
        }
      >
        <Loaded query={insights}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty title="No insights yet" command="outfeed flow list">
                They appear here the moment an agent sends them. Check that a flow is deployed:
              </Empty>
            ) : (
              <LatestInsights insights={items} most={12} />
            )
          }
        </Loaded>
      </Panel>
    </>
  );
}

function Tile(props: { title: string; to: "/agents" | "/flows" | "/insights"; children: ReactNode; note: ReactNode }) {
  return (
    <Link to={props.to} className="card block p-4 hover:border-line-strong">
      <div className="text-sm text-muted">{props.title}</div>
      <div className="mt-1 text-2xl font-semibold tracking-tight">{props.children}</div>
      <div className="mt-1 min-h-6 text-sm">{props.note}</div>
    </Link>
  );
}

function AgentsTile({ agents }: { agents: Agent[] | undefined }) {
  const active = agents?.filter((agent) => !parseTime(agent.revoked_at));
  const connected = active?.filter((agent) => agent.connected).length;
  const away = (active?.length ?? 0) - (connected ?? 0);
  return (
    <Tile
      title="Agents connected"
      to="/agents"
      note={
        away > 0 ? (
          <Badge tone="bad">{count(away)} not connected</Badge>
        ) : (
          <Quiet>{active && (active.length ? "all connected" : "none added yet")}</Quiet>
        )
      }
    >
      {count(connected)}
      <span className="text-base font-normal text-muted"> of {count(active?.length)}</span>
    </Tile>
  );
}

function FlowsTile({ flows, agents }: { flows: Flow[] | undefined; agents: Agent[] | undefined }) {
  const health = agents && flows?.map((flow) => flowHealth(flow, agents)).filter((h) => h !== "idle");
  const number = (wanted: string) => health?.filter((h) => h === wanted).length ?? 0;
  const troubles = [
    { tone: "bad", n: number("failing"), word: "failing" },
    { tone: "warn", n: number("unknown"), word: "not reporting" },
    { tone: "accent", n: number("waiting"), word: "waiting" },
  ] as const;
  const present = troubles.filter(({ n }) => n > 0);
  return (
    <Tile
      title="Flows running"
      to="/flows"
      note={
        present.length > 0 ? (
          <span className="flex flex-wrap gap-1">
            {present.map(({ tone, n, word }) => (
              <Badge key={word} tone={tone}>{`${count(n)} ${word}`}</Badge>
            ))}
          </span>
        ) : (
          <Quiet>{health && (health.length ? "none failing" : "none deployed yet")}</Quiet>
        )
      }
    >
      {health ? count(number("running")) : "–"}
      <span className="text-base font-normal text-muted"> of {count(health?.length)} deployed</span>
    </Tile>
  );
}

function RateTile({ insights, now }: { insights: Insight[] | undefined; now: number }) {
  const received = (insights ?? []).map((insight) => Date.parse(insight.received_at));
  const minutes = perMinute(received, now, rateMinutes);
  const last = minutes.at(-1) ?? 0;
  return (
    <Tile
      title="Insights in the last full minute"
      to="/insights"
      note={<Bars counts={minutes} label={`Insights in each of the last ${rateMinutes} minutes`} />}
    >
      {insights ? count(last) : "–"}
    </Tile>
  );
}

function Bars({ counts, label }: { counts: number[]; label: string }) {
  const most = Math.max(1, ...counts);
  return (
    <svg
      role="img"
      aria-label={`${label}: ${counts.join(", ")}`}
      viewBox="0 0 150 24"
      className="h-6 w-37.5 max-w-full"
    >
      {counts.map((n, i) => {
        const height = n === 0 ? 1 : Math.max(2, (n / most) * 24);
        return (
          <rect
            // biome-ignore lint/suspicious/noArrayIndexKey: a bar is its place in the row
            key={i}
            x={i * 10}
            y={24 - height}
            width="8"
            height={height}
            rx="1"
            className={n === 0 ? "fill-line-strong" : "fill-accent"}
          />
        );
      })}
    </svg>
  );
}

function Quiet({ children }: { children: ReactNode }) {
  return <span className="text-muted">{children}</span>;
}

/** How many findings are shown at first. */
const shownFindings = 25;

function Findings({ found }: { found: Finding[] }) {
  const part = usePart(found, shownFindings);
  if (found.length === 0) {
    return <p className="px-3 py-4 text-muted">Nothing: every agent is connected and every flow does its work.</p>;
  }
  return (
    <>
      <ul className="divide-y divide-line">
        {part.items.map((finding) => (
          <li key={keyOf(finding)} className="px-3 py-2.5">
            <div className="flex items-center gap-3">
              <Badge tone={finding.severity}>{finding.severity === "bad" ? "Problem" : "Warning"}</Badge>
              <span className="min-w-0 truncate">
                <FindingLink finding={finding} />
              </span>
              <span className="ml-auto shrink-0 text-sm text-muted">
                {finding.since && <Ago time={finding.since} />}
              </span>
            </div>
            <p className="mt-1 wrap-anywhere text-muted">{finding.message}</p>
          </li>
        ))}
      </ul>
      <RestButton rest={part.rest} onMore={part.more} />
    </>
  );
}

const keyOf = ({ target, message }: Finding) =>
  `${target.kind}/${target.kind === "agents" ? target.state : target.id}/${message}`;

function FindingLink({ finding: { target, subject } }: { finding: Finding }) {
  switch (target.kind) {
    case "agent":
      return (
        <Link to="/agents/$agent" params={{ agent: target.id }} className="link">
          {subject}
        </Link>
      );
    case "agents":
      return (
        <Link to="/agents" search={{ state: target.state }} className="link">
          {subject}
        </Link>
      );
    case "flow":
      return (
        <Link to="/flows/$flow" params={{ flow: target.id }} className="link">
          {subject}
        </Link>
      );
    case "run":
      return (
        <Link to="/runs/$run" params={{ run: target.id }} className="link">
          {subject}
        </Link>
      );
  }
}
