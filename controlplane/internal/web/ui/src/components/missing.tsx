// Insights that never came: how many and why, in words, and which places of the agent's sequence they had.

import { useInfiniteQuery } from "@tanstack/react-query";
import { missingQuery } from "../api/queries";
import type { Agent } from "../api/types";
import { count } from "../lib/format";
import { missingReasons, neverCame, reasonText } from "../lib/outbox";
import { Loaded, MoreButton, Panel, Table, Time } from "./ui";

export function MissingPanel({ agent }: { agent: Agent }) {
  const all = neverCame(agent.outbox);
  const query = useInfiniteQuery({ ...missingQuery(agent.id), enabled: all > 0 });
  if (all === 0) return null;
  return (
    <Panel title="Insights that never came" aside={`${count(all)} in all`}>
      <ul className="divide-y divide-line border-b border-line">
        {missingReasons(agent.outbox).map(({ reason, n, what, advice }) => (
          <li key={reason} className="px-3 py-2.5">
            <p>
              <span className="tabular font-semibold">{count(n)}</span>{" "}
              <span className="font-medium">{reasonText(reason).toLowerCase()}</span>
            </p>
            <p className="mt-0.5 max-w-prose text-muted">
              {what} {advice}
            </p>
          </li>
        ))}
      </ul>
      <Loaded query={query}>
        {({ pages }) => {
          const ranges = pages.flatMap((page) => page.items);
          return (
            <>
              <Table
                label="Insights that never came"
                head={
                  <>
                    <th scope="col">The agent told of it</th>
                    <th scope="col">Places in its sequence</th>
                    <th scope="col" className="number">
                      Insights
                    </th>
                    <th scope="col" className="w-1/2">
                      Reason
                    </th>
                  </>
                }
              >
                {ranges.map((range) => (
                  <tr key={range.first_seq}>
                    <td>
                      <Time time={range.last_at} />
                    </td>
                    <td className="tabular whitespace-nowrap">
                      {range.first_seq === range.last_seq
                        ? count(range.first_seq)
                        : `${count(range.first_seq)} to ${count(range.last_seq)}`}
                    </td>
                    <td className="number">{count(range.insights)}</td>
                    <td className="whitespace-nowrap">{reasonText(range.reason)}</td>
                  </tr>
                ))}
              </Table>
              <MoreButton query={query} />
              <p className="border-t border-line px-3 py-2 text-sm text-muted">
                A place in the sequence is an insight's number among all that this agent has produced. The newest 1
                {"\u202f"}000 ranges are kept.
              </p>
            </>
          );
        }}
      </Loaded>
    </Panel>
  );
}
