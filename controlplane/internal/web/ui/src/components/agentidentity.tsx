import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "../api/client";
import { agentQuery, queryClient } from "../api/queries";
import type { Agent, AgentLock, LockSide } from "../api/types";
import { count } from "../lib/format";
import { identityTroubles, isRotationOverdue } from "../lib/identity";
import { Badge, Command, ErrorNote, Time } from "./ui";

type Keep = "connected" | "other";

const reasons: Record<AgentLock["reason"], string> = {
  counter: "A connect counter came twice.",
  session: "The value of a session came that another session has followed already.",
  retired_key: "A key came that was given up when the agent's keys were changed.",
};

function keepFresh(agent: Agent) {
  queryClient.setQueryData(agentQuery(agent.id).queryKey, agent);
  queryClient.setQueryData(agentQuery(agent.name).queryKey, agent);
  void queryClient.invalidateQueries({ queryKey: ["agents"] });
}

/** What an owner needs to decide between two copies of an agent, and the decision. */
export function LockBanner({ agent, lock }: { agent: Agent; lock: AgentLock }) {
  const [keep, setKeep] = useState<Keep>();
  const unlock = useMutation({
    mutationFn: async (chosen: Keep) =>
      answer(
        api.POST("/api/v1/agents/{agent}/unlock", { params: { path: { agent: agent.id } }, body: { keep: chosen } }),
      ),
    onSuccess: keepFresh,
  });
  return (
    <section role="alert" aria-label="Locked" className="mb-4 rounded-md border border-bad bg-bad-soft px-4 py-3">
      <p className="font-medium text-bad">This agent is locked: a copy of it has connected.</p>
      <p className="mt-1">
        {reasons[lock.reason]} Its data directory was copied, or an older one was restored from a backup or a snapshot.
        Neither copy may connect, and what waits on them stays there, until an owner decides which one goes on. Locked{" "}
        <Time time={lock.since} />.
      </p>
      <div className="mt-3 grid gap-3 sm:grid-cols-2">
        <Side title="Had connected before" side={lock.connected} onKeep={() => setKeep("connected")} />
        <Side title="Made the lock" side={lock.other} onKeep={() => setKeep("other")} />
      </div>
      {keep && (
        <div className="mt-3 flex flex-wrap items-center gap-2">
          <span>
            {keep === "connected" ? "The copy that had connected before" : "The copy that made the lock"} goes on; the
            other one is refused for good.
          </span>
          <button
            type="button"
            className="button button-primary"
            disabled={unlock.isPending}
            onClick={() => unlock.mutate(keep)}
          >
            {unlock.isPending ? "Unlocking…" : "Unlock"}
          </button>
          <button type="button" className="button" onClick={() => setKeep(undefined)}>
            Cancel
          </button>
        </div>
      )}
      {unlock.error && <ErrorNote error={unlock.error} />}
    </section>
  );
}

function Side({ title, side, onKeep }: { title: string; side: LockSide; onKeep: () => void }) {
  return (
    <div className="rounded-md border border-line bg-surface px-3 py-2">
      <p className="font-medium">{title}</p>
      <p className="break-all">{side.hostname || "not known"}</p>
      <p className="text-sm text-muted">
        from <span className="font-mono">{side.address || "–"}</span>, last seen <Time time={side.seen_at} />, connect{" "}
        {count(side.counter)}
      </p>
      <button type="button" className="button mt-2" onClick={onKeep}>
        Keep this copy
      </button>
    </div>
  );
}

/** What is wrong with an agent's clock and keys, what it does meanwhile, and the command that mends it. */
export function IdentityNotes({ agent }: { agent: Agent }) {
  return identityTroubles(agent).map(({ kind, long, meanwhile, advice, command }) => (
    <div key={kind} role="status" className="mb-4 rounded-md border border-warn bg-warn-soft px-4 py-3">
      <p className="font-medium text-warn">{long}</p>
      <p className="mt-0.5 max-w-prose">{meanwhile}</p>
      <p className="mt-2 max-w-prose">{advice}</p>
      <div className="mt-2 max-w-xl">
        <Command text={command} />
      </div>
    </div>
  ));
}

/** The same in a word or three each, for lists. */
export function IdentityBadges({ agent }: { agent: Agent }) {
  return identityTroubles(agent).map(({ kind, short, long }) => (
    <span key={kind} title={long}>
      <Badge tone="warn">{short}</Badge>
    </span>
  ));
}

/** Asks an agent for new keys, or says since when it was asked. */
export function KeysFact({ agent }: { agent: Agent }) {
  const rotate = useMutation({
    mutationFn: async () =>
      answer(api.POST("/api/v1/agents/{agent}/rotate", { params: { path: { agent: agent.id } } })),
    onSuccess: keepFresh,
  });
  if (agent.rotation_asked_at) {
    return (
      <>
        {isRotationOverdue(agent) ? <Badge tone="warn">not yet</Badge> : "shall change,"} asked{" "}
        <Time time={agent.rotation_asked_at} />
      </>
    );
  }
  return (
    <span className="flex flex-wrap items-center gap-2">
      {agent.rotated_at ? <Time time={agent.rotated_at} /> : "never"}
      <button type="button" className="button" disabled={rotate.isPending} onClick={() => rotate.mutate()}>
        Change keys
      </button>
      {rotate.error && <ErrorNote error={rotate.error} />}
    </span>
  );
}
