import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { answer, api } from "../api/client";
import type { AgentTokenCreated } from "../api/types";
import { parseLabels } from "../lib/format";
import { Ago, Choice, Command, Dialog, ErrorNote, Time } from "./ui";

const systems = ["Linux", "Windows"] as const;
type System = (typeof systems)[number];

/** Makes a one-use token and shows what to run on the plant's machine. */
export function AddAgent({ onClose }: { onClose: () => void }) {
  const [labels, setLabels] = useState("");
  const create = useMutation({
    mutationFn: async () => answer(api.POST("/api/v1/agent-tokens", { body: { labels: parseLabels(labels) } })),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    create.mutate();
  };
  return (
    <Dialog title="Add an agent" onClose={onClose}>
      {create.data ? (
        <Commands created={create.data} onClose={onClose} />
      ) : (
        <form onSubmit={submit} className="p-4">
          <p className="text-muted">
            An agent is enrolled with a token that works once and for an hour. It needs nothing but an outbound
            connection to the control plane.
          </p>
          <label htmlFor="labels" className="mt-4 mb-1 block font-medium">
            Labels <span className="font-normal text-muted">(optional)</span>
          </label>
          <input
            id="labels"
            className="field w-full"
            placeholder="site=berlin line=2"
            autoComplete="off"
            spellCheck={false}
            value={labels}
            onChange={(e) => setLabels(e.target.value)}
          />
          <p className="mt-1 text-sm text-muted">Flows can be deployed to all agents that have a label.</p>
          {create.error && (
            <div className="-mx-3">
              <ErrorNote error={create.error} />
            </div>
          )}
          <div className="mt-4 flex justify-end gap-2">
            <button type="button" className="button" onClick={onClose}>
              Cancel
            </button>
            <button type="submit" className="button button-primary" disabled={create.isPending}>
              {create.isPending ? "Making a token…" : "Make a token"}
            </button>
          </div>
        </form>
      )}
    </Dialog>
  );
}

function Commands({ created, onClose }: { created: AgentTokenCreated; onClose: () => void }) {
  const [system, setSystem] = useState<System>("Linux");
  // The token goes in on the standard input: on the command line other users of the machine could see it.
  const enroll = `enroll --url ${created.url ?? window.location.origin} --token -`;
  const [first, then] =
    system === "Linux"
      ? [`sudo outfeed-agent ${enroll}`, "sudo outfeed-agent run"]
      : [`.\\outfeed-agent.exe ${enroll}`, ".\\outfeed-agent.exe run"];
  return (
    <div className="p-4">
      <p>
        This token is shown only now. It works once, until <Time time={created.agent_token.expires_at} /> (
        <Ago time={created.agent_token.expires_at} />
        ).
      </p>
      <div className="my-4 flex">
        <Choice label="Operating system" options={systems} value={system} onChange={setSystem} />
      </div>
      <ol className="space-y-4">
        <li>
          <p className="mb-1 font-medium">
            1. {system === "Linux" ? "Enrol the machine" : "Enrol the machine, in a PowerShell run as administrator"}
          </p>
          <Command text={first} />
        </li>
        <li>
          <p className="mb-1 font-medium">2. Paste the token when it waits, and press Enter</p>
          <Command text={created.token} />
        </li>
        <li>
          <p className="mb-1 font-medium">3. Run the agent</p>
          <Command text={then} />
        </li>
      </ol>
      <p className="mt-4 text-muted">The agent appears in the list, connected, a moment after it starts.</p>
      <div className="mt-4 flex justify-end">
        <button type="button" className="button button-primary" onClick={onClose}>
          Done
        </button>
      </div>
    </div>
  );
}
