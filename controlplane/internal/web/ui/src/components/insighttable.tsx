import { Link } from "@tanstack/react-router";
import type { Insight } from "../api/types";
import { columnMeasure, isTime, jsonValue, measure, members } from "../lib/format";
import { keyLabel } from "../lib/series";
import { Table, Time } from "./ui";

/** Insights of one name as rows, with a column for each member of the key and each value. */
export function InsightTable({ insights }: { insights: Insight[] }) {
  const keys = [...new Set(insights.flatMap(({ key }) => Object.keys(key)))].sort();
  const columns = columnNames(insights);
  const writers = new Map(columns.map((name) => [name, columnMeasure(insights.map(({ values }) => values[name]))]));
  return (
    <Table
      label="Insights"
      head={
        <>
          <th scope="col">Time</th>
          {keys.map((name) => (
            <th scope="col" key={name}>
              {name}
            </th>
          ))}
          {columns.map((name) => (
            <th scope="col" key={name} className="number">
              {name}
            </th>
          ))}
        </>
      }
    >
      {insights.map((insight) => (
        <tr key={`${insight.agent_id}/${insight.seq}`}>
          <td>
            <Time time={insight.time} />
          </td>
          {keys.map((name) => (
            <td key={name} className="whitespace-nowrap">
              {jsonValue(insight.key[name])}
            </td>
          ))}
          {columns.map((name) => (
            <td key={name} className="number">
              <Value value={insight.values[name]} write={writers.get(name) ?? measure} />
            </td>
          ))}
        </tr>
      ))}
    </Table>
  );
}

/**
 * The insights of all names that came last, so that what comes in shows at the top, whichever time it is of. On a
 * narrow screen each is a few lines instead of a row.
 */
export function LatestInsights({ insights, most }: { insights: Insight[]; most: number }) {
  const latest = [...insights].sort((a, b) => arrival(b) - arrival(a) || b.seq - a.seq).slice(0, most);
  return (
    <ul aria-label="Latest insights" className="divide-y divide-line">
      {latest.map((insight) => (
        <li
          key={`${insight.agent_id}/${insight.seq}`}
          className="grid grid-cols-[1fr_auto] gap-x-4 gap-y-0.5 px-3 py-2 md:grid-cols-[4.5rem_12rem_minmax(0,1fr)]"
        >
          <span className="order-2 text-muted md:order-none md:text-text">
            <Time time={insight.time} />
          </span>
          <span className="min-w-0">
            <Link to="/insights" search={{ name: insight.name }} className="link">
              {insight.name}
            </Link>
            {Object.keys(insight.key).length > 0 && (
              <span className="block text-sm wrap-anywhere" title={members(insight.key)}>
                {keyLabel(insight.key)}
              </span>
            )}
          </span>
          <span className="order-3 col-span-2 text-sm text-muted md:order-none md:col-span-1">
            {valuesText(insight.values)}
          </span>
        </li>
      ))}
    </ul>
  );
}

const arrival = ({ received_at }: Insight) => Date.parse(received_at);

/** A value; a time in the viewer's zone, as everywhere. */
function Value({ value, write }: { value: unknown; write: (value: number) => string }) {
  if (typeof value === "number") return write(value);
  return typeof value === "string" && isTime(value) ? <Time time={value} /> : jsonValue(value);
}

/** The value names: what was measured first, the window's bounds last. */
function columnNames(insights: Insight[]): string[] {
  const names = new Set(insights.flatMap((insight) => Object.keys(insight.values)));
  const bounds = ["window_start", "window_end"].filter((name) => names.delete(name));
  return [...[...names].sort(), ...bounds];
}

function valuesText(values: Record<string, unknown>): string {
  return Object.entries(values)
    .filter(([name]) => name !== "window_start" && name !== "window_end")
    .map(([name, value]) => `${name} ${jsonValue(value)}`)
    .join(" · ");
}
