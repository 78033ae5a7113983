// The account of an agent's insights: what waits and for how long there is room, what came, and what never will.

import { useInfiniteQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { refusedQuery } from "../api/queries";
import type { Agent, Outbox } from "../api/types";
import { bytes, count, parseTime, plural } from "../lib/format";
import { fullness, neverCame, reasonText, recordText, runwayText, troubles } from "../lib/outbox";
import { Ago, Badge, Loaded, MoreButton, Panel, Table, Time } from "./ui";

/** What needs attention in an outbox, as badges; nothing when nothing does. */
export function OutboxBadges({ agent }: { agent: Agent }) {
  return troubles(agent).map(({ short, severity, long }) => (
    <span key={short} title={long}>
      <Badge tone={severity}>{short}</Badge>
    </span>
  ));
}

export function OutboxPanel({ agent }: { agent: Agent }) {
  const { outbox } = agent;
  const reported = parseTime(outbox.reported_at);
  return (
    <Panel
      title="Outbox"
      aside={
        reported && (
          <>
            reported <Ago time={reported} />
          </>
        )
      }
    >
      {reported ? (
        <>
          {outbox.degraded && <State tone="bad" title="The agent cannot write to its disk" reason={outbox.degraded} />}
          {outbox.blocked > 0 && !outbox.degraded && (
            <State
              tone="warn"
              title={`${plural(outbox.blocked, "commit")} of its flows ${outbox.blocked === 1 ? "waits" : "wait"} for room`}
              reason={outbox.blocked_by ?? ""}
            />
          )}
          {!agent.connected && !parseTime(agent.revoked_at) && (
            <p className="px-3 pt-3 text-warn">
              The agent is not connected, so this is what it said <Ago time={reported} />. What it has produced since
              waits on its machine, where <span className="font-mono text-sm">outfeed-agent status</span> says how much
              that is.
            </p>
          )}
          <Waiting outbox={outbox} />
        </>
      ) : (
        <p className="px-3 pt-4 text-muted">The agent has not reported yet.</p>
      )}
      <dl className="grid grid-cols-2 gap-px border-t border-line bg-line md:grid-cols-4">
        {numbers(outbox).map((number) => (
          <Tile key={number.name} {...number} />
        ))}
      </dl>
    </Panel>
  );
}

function State({ tone, title, reason }: { tone: "bad" | "warn"; title: string; reason: string }) {
  const colours = tone === "bad" ? "border-bad bg-bad-soft text-bad" : "border-warn bg-warn-soft text-warn";
  return (
    <div role="status" className={`m-3 mb-0 rounded-md border px-3 py-2 ${colours}`}>
      <p className="font-medium">{title}</p>
      {reason && <p className="mt-0.5 wrap-anywhere first-letter:uppercase">{reason}</p>}
    </div>
  );
}

/** What waits, how full the outbox is with it, and how long the room lasts. */
function Waiting({ outbox }: { outbox: Outbox }) {
  const full = fullness(outbox);
  const percent = Math.round((full ?? 0) * 1000) / 10;
  const short = troubles({ outbox } as Agent).some((t) => t.short.startsWith("Room") || t.short === "Flows wait");
  return (
    <div className="px-3 pt-3 pb-4">
      <div className="flex flex-wrap items-baseline justify-between gap-x-4">
        <p>
          <span className="tabular text-2xl font-semibold tracking-tight">{count(outbox.waiting_records)}</span>{" "}
          <span className="text-muted">
            {outbox.waiting_records === 1 ? "insight waits" : "insights wait"} to be sent ·{" "}
            {bytes(outbox.waiting_bytes)}
          </span>
        </p>
        <p className={short ? "font-medium text-warn" : "text-muted"}>{runwayText(outbox)}</p>
      </div>
      {full !== undefined && (
        <>
          <div aria-hidden="true" className="mt-2 h-2.5 overflow-hidden rounded-full border border-line bg-sunken">
            <div
              className={`h-full rounded-full ${short ? "bg-warn" : "bg-accent"}`}
              style={{ width: `${full > 0 ? Math.max(percent, 0.75) : 0}%` }}
            />
          </div>
          <p className="mt-1.5 flex flex-wrap justify-between gap-x-4 text-sm text-muted">
            <span>{percent} % full</span>
            <span>{bytes(outbox.room_bytes)} of room</span>
          </p>
        </>
      )}
    </div>
  );
}

interface Num {
  name: string;
  n: number;
  /** What it counts, shown on hover and read out. */
  meaning: string;
  tone?: "bad" | "warn";
  note?: ReactNode;
}

function numbers(outbox: Outbox): Num[] {
  return [
    {
      name: "Produced",
      n: outbox.produced,
      meaning: "Insights that the agent has staged on its disk since it was enrolled.",
    },
    {
      name: "Sent",
      n: outbox.sent,
      meaning: "Up to this insight each was sent at least once, or the control plane was told why it does not come.",
    },
    {
      name: "Acknowledged",
      n: outbox.acknowledged,
      meaning: "Insights that the control plane has accounted for, as far as the agent knows; it keeps them no longer.",
    },
    { name: "Stored here", n: outbox.stored, meaning: "Insights that the control plane has stored." },
    {
      name: reasonText("expired_age"),
      n: outbox.expired.expired_age ?? 0,
      tone: "warn",
      meaning: "Insights that the plant's rule for age has dropped before they could be sent.",
    },
    {
      name: reasonText("expired_bytes"),
      n: outbox.expired.expired_bytes ?? 0,
      tone: "warn",
      meaning: "Insights that the plant's rule for size has dropped, the oldest first, before they could be sent.",
    },
    {
      name: "Lost",
      n: outbox.lost,
      tone: "bad",
      meaning:
        "Insights that were damaged on the agent's disk, or that could never be sent. The agent's log says more.",
    },
    {
      name: "Lost afterwards",
      n: outbox.lost_remotely,
      tone: "bad",
      meaning:
        "Insights that the control plane had acknowledged and that its database no longer held, as after a restore.",
    },
    {
      name: "Never came",
      n: neverCame(outbox),
      tone: "bad",
      meaning:
        "Places in the agent's sequence that hold no insight here. The agent has told why: it is listed below, by reason.",
    },
    {
      name: "Refused here",
      n: outbox.refused,
      tone: "bad",
      meaning: "Insights that came and could never be stored. The newest are listed below with the reason.",
    },
    {
      name: "Salvaged",
      n: outbox.salvaged,
      meaning: "Insights that were taken whole out of damaged files on the agent's disk. They are sent like any other.",
    },
    {
      name: "Rows too late",
      n: outbox.late,
      tone: "warn",
      meaning: "Rows that came too late for the window that they belong to.",
    },
  ];
}

function Tile({ name, n, meaning, tone }: Num) {
  const colour = n > 0 && tone ? (tone === "bad" ? "text-bad" : "text-warn") : "";
  return (
    <div className="min-w-0 bg-surface px-3 py-2.5" title={meaning}>
      <dt className="text-xs text-muted">
        <span className="cursor-help underline decoration-line-strong decoration-dotted underline-offset-3">
          {name}
        </span>
        <span className="sr-only">: {meaning}</span>
      </dt>
      <dd className={`tabular mt-0.5 text-base font-medium ${colour}`}>{count(n)}</dd>
    </div>
  );
}

/** The beginning of a refused insight as it came, once somebody wants to see it. */
function RefusedRecord({ record }: { record: string | null }) {
  const [open, setOpen] = useState(false);
  if (!record) return null;
  return (
    <details className="mt-0.5 text-sm" onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary className="cursor-pointer text-muted">What came</summary>
      {open && (
        <pre
          tabIndex={0}
          className="mt-1 max-h-48 overflow-auto rounded-md border border-line bg-sunken p-2 font-mono text-xs whitespace-pre-wrap"
        >
          {recordText(record)}
        </pre>
      )}
    </details>
  );
}

/** The newest insights of an agent that could never be stored; nothing when there are none. */
export function RefusedPanel({ agent }: { agent: Agent }) {
  const query = useInfiniteQuery({ ...refusedQuery(agent.id), enabled: agent.outbox.refused > 0 });
  if (agent.outbox.refused === 0) return null;
  return (
    <Panel title="Refused insights" aside={`${count(agent.outbox.refused)} in all, the newest 1\u202f000 are kept`}>
      <Loaded query={query}>
        {({ pages }) => (
          <>
            <Table
              label="Refused insights"
              head={
                <>
                  <th scope="col">Received</th>
                  <th scope="col" className="number">
                    Sequence
                  </th>
                  <th scope="col">Insight</th>
                  <th scope="col">Reason</th>
                </>
              }
            >
              {pages
                .flatMap((page) => page.items)
                .map((refused) => (
                  <tr key={refused.seq}>
                    <td>
                      <Time time={refused.received_at} />
                    </td>
                    <td className="number">{count(refused.seq)}</td>
                    <td className="whitespace-nowrap">
                      {refused.name || <span className="text-muted">unreadable</span>}
                    </td>
                    <td className="min-w-64 wrap-anywhere">
                      {refused.reason}
                      <RefusedRecord record={refused.record} />
                    </td>
                  </tr>
                ))}
            </Table>
            <MoreButton query={query} />
          </>
        )}
      </Loaded>
    </Panel>
  );
}
