import { flowGraph, type GraphStep } from "../lib/flowtext";

const box = { width: 168, height: 50, gapX: 36, gapY: 16 };

const left = (step: GraphStep) => 1 + step.column * (box.width + box.gapX);
const top = (step: GraphStep) => 1 + step.row * (box.height + box.gapY);

const edgeOf = { read: "stroke-accent", insight: "stroke-ok" } as Record<string, string>;

/** The steps of a definition as boxes, with what flows between them. */
export function FlowGraph({ definition }: { definition: string }) {
  const steps = flowGraph(definition);
  if (steps.length === 0) {
    return <p className="px-3 py-4 text-muted">The steps of this definition cannot be drawn.</p>;
  }
  const width = Math.max(...steps.map(left)) + box.width + 1;
  const height = Math.max(...steps.map(top)) + box.height + 1;
  const links = steps.flatMap((to) =>
    to.from.flatMap((id) => steps.filter((s) => s.id === id && s !== to).map((from) => ({ from, to }))),
  );
  const words = steps.map((s) => `${s.id}: ${s.verb}${s.from.length ? ` from ${s.from.join(" and ")}` : ""}`);
  return (
    <section aria-label="Steps" tabIndex={0} className="scroll-x p-3">
      <svg role="img" aria-label={words.join("; ")} width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
        {links.map(({ from, to }) => (
          <Edge key={`${from.id} ${to.id}`} from={from} to={to} />
        ))}
        {steps.map((step) => (
          <StepBox key={step.id} step={step} />
        ))}
      </svg>
    </section>
  );
}

function Edge({ from, to }: { from: GraphStep; to: GraphStep }) {
  const x1 = left(from) + box.width;
  const y1 = top(from) + box.height / 2;
  const x2 = left(to) - 1;
  const y2 = top(to) + box.height / 2;
  const bend = Math.max(14, (x2 - x1) / 2);
  return (
    <g className="fill-none stroke-line-strong" strokeWidth="1.5">
      <path d={`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 5} ${y2}`} />
      <path d={`M${x2 - 6} ${y2 - 4}l5 4l-5 4z`} className="fill-line-strong" strokeWidth="1" />
    </g>
  );
}

function StepBox({ step }: { step: GraphStep }) {
  const named = step.id.startsWith(`${step.verb}_`) ? "" : step.id;
  return (
    <g transform={`translate(${left(step)} ${top(step)})`}>
      <title>{`${step.id}: ${step.verb} ${step.detail}`}</title>
      <rect
        width={box.width}
        height={box.height}
        rx="6"
        className={`fill-sunken ${edgeOf[step.verb] ?? "stroke-line-strong"}`}
        strokeWidth="1.2"
      />
      <text x="10" y="20" className="fill-text text-[13px] font-semibold">
        {step.verb}
        {named && <tspan className="fill-muted font-normal">{`  ${shorten(named, 16)}`}</tspan>}
      </text>
      <text x="10" y="38" className="fill-muted text-[12px]">
        {shorten(step.detail, 24)}
      </text>
    </g>
  );
}

function shorten(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
