// Lines over time, drawn by uPlot. Loaded only where a plot is shown.

import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { count, localDateTime, measure, plural, utcDateTime } from "../lib/format";
import { isolatedPoints, type Line, lastValue, type Series, timeLabels } from "../lib/series";
import { type Theme, useTheme } from "../lib/theme";

// Eight hues that stay apart for colour-blind readers and keep contrast on both backgrounds; further lines are dashed.
const palette: Record<Theme, readonly string[]> = {
  light: ["#0b6480", "#c2570c", "#6a4fc4", "#3d7a1e", "#b3246b", "#8a6d00", "#2f63d0", "#5a6670"],
  dark: ["#5bbcd8", "#f0954a", "#b1a2f7", "#8ccb66", "#f184b6", "#dcbc3c", "#82abfa", "#aab4bc"],
};
const height = 300;

interface Props {
  series: Series;
  insight: string;
  /** The name of the value that is drawn. */
  value: string;
  /** Seconds since the epoch. */
  from: number;
  to: number;
}

export default function Plot({ series, insight, value, from, to }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const view = useRef({ from, to, data: toData(series) });
  const theme = useTheme();
  const [hover, setHover] = useState<number | undefined>(undefined);
  const labels = series.lines.map((line) => line.label).join("\n");
  const colours = useMemo(() => labels.split("\n").map((_, i) => colourOf(theme, i)), [labels, theme]);
  view.current = { from, to, data: toData(series) };

  // A plot is made anew when its lines or the theme change, and fed with data otherwise.
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const options = plotOptions(element, labels.split("\n"), theme, setHover);
    options.scales = { x: { time: true, range: () => [view.current.from, view.current.to] } };
    const made = new uPlot(options, view.current.data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [labels, theme]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the range is read through the view when the data is set
  useEffect(() => {
    plot.current?.setData(view.current.data);
  }, [series, from, to]);

  const at = hover === undefined ? undefined : series.times[hover];
  return (
    <div className="grid gap-3 p-3 lg:grid-cols-[minmax(0,1fr)_auto]">
      <div
        ref={place}
        role="img"
        aria-label={`${value} of ${insight} over time, ${plural(series.lines.length, "line")}. The records are in the table below.`}
        data-insight={insight}
        className="min-w-0"
      />
      <div className={`min-w-0 text-sm ${series.named.length > 1 ? "lg:w-72" : "lg:w-52"}`}>
        <p
          className="mb-1 min-h-5 text-xs text-muted"
          title={at === undefined ? undefined : utcDateTime(new Date(at * 1000))}
        >
          {at === undefined ? "Newest values" : localDateTime(new Date(at * 1000))}
        </p>
        {series.named.length > 1 && <p className="mb-1 text-xs text-muted">{series.named.join(" · ")}</p>}
        <section aria-label="Lines" tabIndex={0} className="max-h-60 overflow-y-auto">
          <ul className={`grid gap-x-4 lg:grid-cols-1 ${series.named.length > 1 ? "" : "grid-cols-2"}`}>
            {series.lines.map((line, i) => (
              <li key={line.label} className="flex items-center justify-between gap-2 py-px">
                <span className="flex min-w-0 items-center gap-2">
                  <Swatch colour={colours[i] ?? ""} dashed={i >= palette[theme].length} />
                  <span className="truncate" title={line.label}>
                    {line.label}
                  </span>
                </span>
                <span className="tabular font-medium">
                  {shown(at === undefined ? lastValue(line) : line.values[hover ?? 0])}
                </span>
              </li>
            ))}
          </ul>
        </section>
        <Notes series={series} record={hover === undefined ? undefined : recordAt(series.lines, hover)} />
      </div>
    </div>
  );
}

/** What the lines do not show by themselves. */
function Notes({ series: { lines, folded, omitted }, record }: { series: Series; record: string | undefined }) {
  return (
    <div className="mt-2 space-y-1 text-xs break-words text-muted">
      {folded.length > 0 && (
        <p>
          {`${folded.join(", ")} ${folded.length === 1 ? "is" : "are"} new with nearly every record: `}
          {lines.length === 1 ? "all records are one line." : "a line goes across them."}
        </p>
      )}
      {folded.length > 0 && <p className="min-h-5">{record}</p>}
      {omitted > 0 && <p>{`${count(omitted)} more lines are not drawn.`}</p>}
    </div>
  );
}

const recordAt = (lines: Line[], i: number) => lines.flatMap(({ records }) => records?.[i] ?? []).join("; ");

function Swatch({ colour, dashed }: { colour: string; dashed: boolean }) {
  return (
    <svg aria-hidden="true" viewBox="0 0 14 4" className="h-1 w-3.5 shrink-0">
      <path d="M0 2h14" stroke={colour} strokeWidth="3" strokeDasharray={dashed ? "4 2" : undefined} />
    </svg>
  );
}

/** Which points get a dot: all where there is room, and always those that no line leads to. */
const dots: uPlot.Series.Points.Filter = (plot, i, show) =>
  show ? null : isolatedPoints(plot.data[i] as Line["values"]);

const shown = (value: number | null | undefined) => (typeof value === "number" ? measure(value) : "–");

const colourOf = (theme: Theme, i: number) => palette[theme][i % palette[theme].length] ?? "#808080";

const toData = (series: Series): uPlot.AlignedData => [series.times, ...series.lines.map((line) => line.values)];

function plotOptions(
  element: HTMLElement,
  labels: string[],
  theme: Theme,
  onHover: (index: number | undefined) => void,
): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const font = `12px ${getComputedStyle(element).fontFamily}`;
  const axis = {
    stroke: style.getPropertyValue("--muted").trim(),
    grid: { stroke: style.getPropertyValue("--line").trim(), width: 1 },
    ticks: { show: false },
    font,
  };
  return {
    width: element.clientWidth,
    height,
    padding: [12, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { setScale: false, x: false, y: false }, points: { size: 7 } },
    axes: [
      { ...axis, space: 70, size: 40, values: (_plot, ticks, _axis, _space, step) => timeLabels(ticks, step) },
      { ...axis, size: 64, values: (_plot, ticks) => ticks.map((tick) => measure(tick)) },
    ],
    series: [
      {},
      ...labels.map((label, i) => ({
        label,
        stroke: colourOf(theme, i),
        width: 1.75,
        points: { size: 5, filter: dots },
        ...(i >= palette[theme].length ? { dash: [6, 3] } : {}),
      })),
    ],
    hooks: {
      setCursor: [
        (made) => {
          const idx = made.cursor.idx;
          onHover(made.cursor.left !== undefined && made.cursor.left >= 0 && idx !== null ? idx : undefined);
        },
      ],
    },
  };
}
