import { Link } from "@tanstack/react-router";
import type { Insight } from "../api/types";
import { isTime, jsonValue, members } from "../lib/format";
import { Table, Time } from "./ui";

/** Insights as rows. With one name, each value has its column; with several, the values stand together. */
export function InsightTable({ insights, withName = false }: { insights: Insight[]; withName?: boolean }) {
  const columns = withName ? [] : columnNames(insights);
  return (
    <Table
      label="Insights"
      head={
        <>
          <th scope="col">Time</th>
          {withName && <th scope="col">Insight</th>}
          <th scope="col">Key</th>
          {columns.map((name) => (
            <th scope="col" key={name} className="number">
              {name}
            </th>
          ))}
          {withName && <th scope="col">Values</th>}
        </>
      }
    >
      {insights.map((insight) => (
        <tr key={`${insight.agent_id}/${insight.seq}`}>
          <td>
            <Time time={insight.time} />
          </td>
          {withName && (
            <td className="whitespace-nowrap">
              <Link to="/insights" search={{ name: insight.name }} className="link">
                {insight.name}
              </Link>
            </td>
          )}
          <td className="whitespace-nowrap">{members(insight.key) || <span className="text-muted">–</span>}</td>
          {columns.map((name) => (
            <td key={name} className="number">
              <Value value={insight.values[name]} />
            </td>
          ))}
          {withName && <td className="min-w-64 text-muted">{valuesText(insight.values)}</td>}
        </tr>
      ))}
    </Table>
  );
}

/** A value; a time in the viewer's zone, as everywhere. */
function Value({ value }: { value: unknown }) {
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
