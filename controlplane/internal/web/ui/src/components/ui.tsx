// The small parts that every page is made of.

import type { UseInfiniteQueryResult, UseQueryResult } from "@tanstack/react-query";
import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { describeError } from "../api/problem";
import { count, localDateTime, localTime, parseTime, relativeTime, utcDateTime } from "../lib/format";
import { useNow } from "../live/clock";

export type Tone = "ok" | "warn" | "bad" | "accent" | "plain";

const toneClasses: Record<Tone, string> = {
  ok: "bg-ok-soft text-ok",
  warn: "bg-warn-soft text-warn",
  bad: "bg-bad-soft text-bad",
  accent: "bg-accent-soft text-accent",
  plain: "bg-canvas text-muted",
};

const dotClasses: Record<Tone, string> = {
  ok: "bg-ok",
  warn: "bg-warn",
  bad: "bg-bad",
  accent: "bg-accent",
  plain: "bg-line-strong",
};

export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <span
      className={`inline-flex items-center rounded px-1.5 py-px text-xs font-medium whitespace-nowrap ${toneClasses[tone]}`}
    >
      {children}
    </span>
  );
}

/** A coloured dot with its word, so that nothing hangs on colour alone. */
export function Dot({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <span className="inline-flex items-baseline gap-2 whitespace-nowrap">
      <span aria-hidden="true" className={`size-2 shrink-0 self-center rounded-full ${dotClasses[tone]}`} />
      {children}
    </span>
  );
}

export function PageHead({ title, children, note }: { title: ReactNode; children?: ReactNode; note?: ReactNode }) {
  return (
    <div className="mb-4 flex flex-wrap items-start justify-between gap-x-4 gap-y-2">
      <div className="min-w-0">
        <h1 className="text-xl font-semibold tracking-tight break-words">{title}</h1>
        {note && <div className="mt-0.5 text-muted">{note}</div>}
      </div>
      {children && <div className="flex flex-wrap items-center gap-2">{children}</div>}
    </div>
  );
}

/** A titled part of a page. */
export function Panel({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section className="card mb-4 overflow-hidden">
      <header className="flex flex-wrap items-center justify-between gap-x-4 gap-y-1 border-b border-line px-3 py-2">
        <h2 className="font-semibold">{title}</h2>
        {aside && <div className="text-sm text-muted">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

/** A table that scrolls sideways by itself when the screen is narrow, by keyboard as well. */
export function Table({ label, head, children }: { label: string; head: ReactNode; children: ReactNode }) {
  return (
    <section aria-label={label} tabIndex={0} className="scroll-x">
      <table className="table">
        <thead>
          <tr>{head}</tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </section>
  );
}

export function Loading() {
  return (
    <p role="status" className="p-4 text-muted">
      Loading…
    </p>
  );
}

export function ErrorNote({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const { message, details } = describeError(error);
  return (
    <div role="alert" className="m-3 rounded-md border border-bad bg-bad-soft px-3 py-2 text-bad">
      <p className="font-medium">{message}</p>
      {details.length > 0 && (
        <ul className="mt-1 list-disc pl-5">
          {details.map((detail) => (
            <li key={detail}>{detail}</li>
          ))}
        </ul>
      )}
      {onRetry && (
        <button type="button" className="mt-1 font-medium underline underline-offset-2" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Shows a query's data once it is there. Data that is merely old stays in view, with the reason above it. */
export function Loaded<T>(props: {
  query: UseQueryResult<T> | UseInfiniteQueryResult<T>;
  children: (data: T) => ReactNode;
  /** What the page is about, where it has no other heading when there is nothing to show. */
  page?: string;
}) {
  const { query, children, page } = props;
  const failed = query.error && <ErrorNote error={query.error} onRetry={() => void query.refetch()} />;
  if (query.data === undefined) {
    if (!failed) return <Loading />;
    return (
      <>
        {page && <PageHead title={page} />}
        {failed}
      </>
    );
  }
  return (
    <>
      {failed}
      {children(query.data)}
    </>
  );
}

/** Loads the next page of a listing; nothing when there is none. */
export function MoreButton({ query }: { query: UseInfiniteQueryResult }) {
  if (!query.hasNextPage) return null;
  return (
    <p className="border-t border-line p-3 text-center">
      <button
        type="button"
        className="button"
        disabled={query.isFetchingNextPage}
        onClick={() => void query.fetchNextPage()}
      >
        Show more
      </button>
    </p>
  );
}

/** Shows more of a list that is there already; nothing when all of it is shown. */
export function RestButton({ rest, onMore }: { rest: number; onMore: () => void }) {
  if (rest === 0) return null;
  return (
    <p className="border-t border-line p-3 text-center">
      <button type="button" className="button" onClick={onMore}>
        Show more
      </button>
      <span className="ml-3 text-sm text-muted">{count(rest)} more</span>
    </p>
  );
}

/** What to do where there is nothing yet, with the command that does it. */
export function Empty({ title, children, command }: { title: string; children?: ReactNode; command?: string }) {
  return (
    <div className="px-4 py-8 text-center">
      <p className="font-medium">{title}</p>
      {children && <div className="mx-auto mt-1 max-w-prose text-muted">{children}</div>}
      {command && (
        <div className="mx-auto mt-3 max-w-xl text-left">
          <Command text={command} />
        </div>
      )}
    </div>
  );
}

/** A command to copy. */
export function Command({ text }: { text: string }) {
  return (
    <div className="flex items-start gap-2 rounded-md border border-line bg-sunken p-2">
      <pre className="min-w-0 flex-1 self-center font-mono text-sm whitespace-pre-wrap">
        {text.split(/( |\n)/).map((word, i) => (
          // A flag breaks as a whole: a browser would break --owner behind its first hyphen.
          // biome-ignore lint/suspicious/noArrayIndexKey: a word is its place in the line
          <span key={i} className={word.trim() === "" ? "" : "inline-block max-w-full break-all"}>
            {word}
          </span>
        ))}
      </pre>
      <CopyButton text={text} />
    </div>
  );
}

export function CopyButton({ text }: { text: string }) {
  const [said, setSaid] = useState("Copy");
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await copyText(text);
      setSaid("Copied");
    } catch {
      setSaid("Select and copy");
    }
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setSaid("Copy"), 2000);
  };
  return (
    <button type="button" className="button min-h-7 px-2 text-xs" onClick={() => void copy()}>
      <span aria-live="polite">{said}</span>
    </button>
  );
}

// A dashboard on plain http, as in a plant's own network, has no clipboard API: the older way works there.
async function copyText(text: string): Promise<void> {
  if (window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("the browser refused to copy");
}

// What just happened is a little ahead of a clock that ticks every five seconds.
function agoNow(at: Date, now: number): Date {
  const ahead = at.getTime() - now;
  return new Date(ahead > 0 && ahead < 10_000 ? at.getTime() : now);
}

/** How long ago, with the viewer's own time and UTC in the tooltip. */
export function Ago({ time }: { time: string | Date | undefined }) {
  const now = useNow();
  const at = time instanceof Date ? time : parseTime(time);
  if (!at) return <span className="text-muted">never</span>;
  return (
    <time dateTime={at.toISOString()} title={`${localDateTime(at)} here · ${utcDateTime(at)}`}>
      {relativeTime(at, agoNow(at, now))}
    </time>
  );
}

/** A time in the viewer's zone, with UTC in the tooltip. */
export function Time({ time }: { time: string | undefined }) {
  const now = useNow();
  const at = parseTime(time);
  if (!at) return <span className="text-muted">–</span>;
  return (
    <time dateTime={at.toISOString()} title={utcDateTime(at)} className="whitespace-nowrap">
      {localTime(at, new Date(now))}
    </time>
  );
}

export function Labels({ labels }: { labels: Record<string, string> }) {
  const entries = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length === 0) return <span className="text-muted">–</span>;
  return (
    <span className="flex flex-wrap gap-1">
      {entries.map(([name, value]) => (
        <span key={name} className="rounded border border-line bg-sunken px-1.5 text-xs">
          <span className="text-muted">{name}=</span>
          {value}
        </span>
      ))}
    </span>
  );
}

/** Options by name, and under them those whose values are secret. */
export function Options(props: { options: Record<string, unknown>; secrets?: string[] }) {
  const options = Object.entries(props.options).sort(([a], [b]) => (a < b ? -1 : 1));
  return (
    <dl className="space-y-0.5 text-sm">
      {options.map(([name, value]) => (
        <div key={name}>
          <dt className="inline text-muted">{name} </dt>
          <dd className="inline wrap-anywhere">{typeof value === "string" ? value : JSON.stringify(value)}</dd>
        </div>
      ))}
      {props.secrets?.map((name) => (
        <div key={name}>
          <dt className="inline text-muted">{name} </dt>
          <dd className="inline" title="Stored encrypted, and never shown again.">
            ••••••
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** How many names are shown before a click. */
const shownNames = 12;

/** A list of names; the rest of a long one appears with a click. */
export function Names({ names }: { names: string[] }) {
  const [all, setAll] = useState(false);
  if (names.length === 0) return "–";
  if (all || names.length <= shownNames) return names.join(", ");
  return (
    <>
      {names.slice(0, shownNames).join(", ")}{" "}
      <button type="button" className="link whitespace-nowrap" onClick={() => setAll(true)}>
        and {count(names.length - shownNames)} more
      </button>
    </>
  );
}

/** A count that is good when it is zero. */
export function Troubled({ n, tone = "bad" }: { n: number; tone?: "bad" | "warn" }) {
  return <span className={n > 0 ? `font-medium ${tone === "bad" ? "text-bad" : "text-warn"}` : ""}>{count(n)}</span>;
}

/** A list of names and values. */
export function Facts({ facts }: { facts: [string, ReactNode][] }) {
  return (
    <dl className="grid grid-cols-2 gap-x-4 gap-y-3 p-3 sm:grid-cols-3 lg:grid-cols-4">
      {facts.map(([name, value]) => (
        <div key={name} className="min-w-0">
          <dt className="text-xs text-muted">{name}</dt>
          <dd className="break-words">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** One of a few choices, as a row of buttons that arrow keys move through. */
export function Choice<T extends string>(props: {
  label: string;
  options: readonly T[];
  value: T;
  onChange: (value: T) => void;
}) {
  const name = useId();
  return (
    <fieldset className="flex rounded-md border border-line-strong bg-surface p-0.5">
      <legend className="sr-only">{props.label}</legend>
      {props.options.map((option) => (
        <label
          key={option}
          className="cursor-pointer rounded px-2.5 py-0.5 font-medium text-muted has-checked:bg-accent has-checked:text-on-accent has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-accent"
        >
          <input
            type="radio"
            name={name}
            className="sr-only"
            checked={option === props.value}
            onChange={() => props.onChange(option)}
          />
          {option}
        </label>
      ))}
    </fieldset>
  );
}

export function Select(props: {
  label: string;
  value: string;
  options: readonly (readonly [value: string, text: string])[];
  onChange: (value: string) => void;
}) {
  return (
    <label className="flex items-center gap-2">
      <span className="text-muted">{props.label}</span>
      <select className="field max-w-52" value={props.value} onChange={(e) => props.onChange(e.target.value)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A modal dialog; the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    // Never closed here: an effect may run twice, and the browser forgets a dialog that leaves the page.
    if (!ref.current?.open) ref.current?.showModal();
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onClose={onClose}
      className="card m-auto max-h-[90dvh] w-[min(42rem,calc(100vw-1.5rem))] overflow-auto p-0 text-text shadow-xl backdrop:bg-black/50"
    >
      <header className="flex items-center justify-between gap-4 border-b border-line px-4 py-3">
        <h2 id={id} className="text-lg font-semibold">
          {title}
        </h2>
        <button type="button" className="button min-h-8 px-2" aria-label="Close" onClick={() => ref.current?.close()}>
          <svg aria-hidden="true" viewBox="0 0 16 16" className="size-4" fill="none" stroke="currentColor">
            <path d="M4 4l8 8M12 4l-8 8" strokeWidth="1.6" strokeLinecap="round" />
          </svg>
        </button>
      </header>
      {children}
    </dialog>
  );
}
