import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useMemo } from "react";
import { type InsightList, insightNamesQuery, insightsQuery } from "../api/queries";
import { InsightTable } from "../components/insighttable";
import { Choice, Empty, ErrorNote, Loaded, Loading, PageHead, Panel, Select } from "../components/ui";
import { plural } from "../lib/format";
import { buildSeries, numericNames, type Point } from "../lib/series";
import { useNow } from "../live/clock";
import type { Range } from "../router";

const Plot = lazy(() => import("../components/plot"));

const minutesOf: Record<Range, number> = { "15m": 15, "1h": 60, "6h": 360, "24h": 1440 };
const ranges = Object.keys(minutesOf) as Range[];
const rowsShown = 50;

export function Insights() {
  const search = useSearch({ from: "/insights" });
  const navigate = useNavigate({ from: "/insights" });
  const names = useQuery(insightNamesQuery);
  const unique = [...new Set((names.data ?? []).map(({ name }) => name))].sort();
  const name = search.name ?? unique[0] ?? "";
  const insights = useQuery(insightsQuery({ name, minutes: minutesOf[search.range ?? "1h"] }));
  const now = useNow();
  const range = search.range ?? fittingRange(insights.data, now);
  const set = (change: { name?: string; value?: string | undefined; range?: Range }) =>
    void navigate({ search: (was) => ({ ...was, ...change }), replace: true });
  if (names.error && !names.data) return <ErrorNote error={names.error} onRetry={() => void names.refetch()} />;
  if (!names.data) return <Loading />;
  if (name === "") {
    return (
      <>
        <PageHead title="Insights" />
        <Panel title="Insights">
          <Empty title="No insights yet" command="outfeed flow deploy FLOW AGENT">
            Insights appear here the moment a deployed flow produces its first:
          </Empty>
        </Panel>
      </>
    );
  }
  const choices = unique.includes(name) ? unique : [name, ...unique];
  return (
    <>
      <PageHead title="Insights">
        <Select
          label="Insight"
          value={name}
          options={choices.map((n) => [n, n] as const)}
          onChange={(chosen) => set({ name: chosen, value: undefined })}
        />
        <Choice label="Range" options={ranges} value={range} onChange={(chosen) => set({ range: chosen })} />
      </PageHead>
      <Loaded query={insights}>
        {(list) => (
          <Content
            list={list}
            minutes={minutesOf[range]}
            value={search.value}
            onValue={(value) => set({ value })}
            range={range}
          />
        )}
      </Loaded>
    </>
  );
}

/** An hour, unless nothing is older than the quarter: then the plot would be empty for the most part. */
function fittingRange(list: InsightList | undefined, now: number): Range {
  const oldest = list?.items.at(-1);
  return oldest && Date.parse(oldest.time) > now - minutesOf["15m"] * 60_000 ? "15m" : "1h";
}

interface ContentProps {
  list: InsightList;
  minutes: number;
  value: string | undefined;
  onValue: (value: string) => void;
  range: Range;
}

function Content({ list, minutes, value, onValue, range }: ContentProps) {
  const now = useNow();
  const points = useMemo(
    () => list.items.map((i): Point => ({ time: Date.parse(i.time), key: i.key, values: i.values })),
    [list.items],
  );
  const values = useMemo(() => numericNames(points), [points]);
  const chosen = value !== undefined && values.includes(value) ? value : values[0];
  // The newest may be a little ahead of this machine's clock.
  const to = Math.max(now, points[0]?.time ?? 0);
  const from = to - minutes * 60_000;
  const series = useMemo(
    () => (chosen === undefined ? undefined : buildSeries(points, chosen, from, to)),
    [points, chosen, from, to],
  );
  if (list.items.length === 0) {
    return (
      <Panel title="Insights">
        <Empty title={`Nothing in the last ${range}`}>
          Choose a longer range, or see on Flows whether its flow runs.
        </Empty>
      </Panel>
    );
  }
  return (
    <>
      <Panel
        title={chosen ?? "Values"}
        aside={
          values.length > 0 && (
            <Select
              label="Value"
              value={chosen ?? ""}
              options={values.map((v) => [v, v] as const)}
              onChange={onValue}
            />
          )
        }
      >
        {series && chosen ? (
          <Suspense fallback={<Loading />}>
            <Plot
              series={series}
              insight={list.items[0]?.name ?? ""}
              value={chosen}
              from={from / 1000}
              to={to / 1000}
            />
          </Suspense>
        ) : (
          <Empty title="This insight has no numbers to draw">Its records are in the table below.</Empty>
        )}
      </Panel>
      <Panel title="Records" aside={tableNote(list)}>
        <InsightTable insights={list.items.slice(0, rowsShown)} />
      </Panel>
    </>
  );
}

function tableNote(list: InsightList): string {
  const total = plural(list.items.length, "insight");
  const shown = list.items.length > rowsShown ? `, the newest ${rowsShown} shown` : "";
  return list.truncated ? `the newest ${total} of more in this range${shown}` : `${total}${shown}`;
}
