// Files of an agent's staging that its disk has damaged: what was saved of them, and what a person should do.

import type { Agent, DamagedFile } from "../api/types";
import { count, plural } from "../lib/format";
import { damageResult, flowNames, wentBack } from "../lib/outbox";
import { Panel, Table, Time } from "./ui";

export function DamagePanel({ agent }: { agent: Agent }) {
  const { outbox } = agent;
  if (outbox.damaged_files === 0) return null;
  const backOnly = outbox.damage.length > 0 && outbox.damage.every(wentBack);
  const times = backOnly ? plural(outbox.damaged_files, "time") : plural(outbox.damaged_files, "file");
  const salvaged = outbox.salvaged > 0 || !backOnly ? `, ${plural(outbox.salvaged, "insight")} salvaged` : "";
  const aside = `${times} so far${salvaged}`;
  return (
    <Panel title={backOnly ? "Staging that went back" : "Damaged files"} aside={aside}>
      {outbox.damage.length === 0 ? (
        <p className="px-3 py-2.5 text-muted">None of them is on the machine any more.</p>
      ) : (
        <>
          {outbox.damage.some(wentBack) && <WentBackAdvice agent={agent} />}
          {outbox.damage.some((file) => !wentBack(file)) && <Advice agent={agent} />}
          <Table
            label="Damaged files"
            head={
              <>
                <th scope="col">Set aside</th>
                <th scope="col">What became of it</th>
                <th scope="col">What was wrong</th>
              </>
            }
          >
            {outbox.damage.map((file) => (
              <Row key={file.file} file={file} agent={agent} />
            ))}
          </Table>
        </>
      )}
    </Panel>
  );
}

/** What waited when the machine became this agent and had been another one; nothing when there is none of it. */
export function SetAsidePanel({ agent }: { agent: Agent }) {
  const { set_aside: all } = agent.outbox;
  if (all.length === 0) return null;
  return (
    <Panel title="Insights of an earlier agent">
      <p className="max-w-prose px-3 pt-2.5 pb-3 text-muted">
        This machine was another agent before. What had waited then was set aside in the agent's data directory, because
        it belongs to that agent, and is not sent. When that agent was killed, the number is the most that can have
        waited. Remove the folder when nobody needs it: after the next start of the agent this note is gone.
      </p>
      <Table
        label="Insights of an earlier agent"
        head={
          <>
            <th scope="col">Folder</th>
            <th scope="col">Agent</th>
            <th scope="col" className="number">
              Insights
            </th>
          </>
        }
      >
        {all.map(({ dir, agent_id, waiting }) => (
          <tr key={dir}>
            <td className="min-w-64 font-mono text-sm wrap-anywhere">{dir}</td>
            <td className="min-w-48 font-mono text-sm wrap-anywhere">{agent_id || "not known"}</td>
            <td className="number">{waiting < 0 ? "not known" : count(waiting)}</td>
          </tr>
        ))}
      </Table>
    </Panel>
  );
}

function Advice({ agent }: { agent: Agent }) {
  return (
    <div role="status" className="m-3 rounded-md border border-warn bg-warn-soft px-3 py-2">
      <p className="font-medium text-warn">
        Check the disk of {agent.hostname || "its machine"}: something has damaged what the agent keeps there.
      </p>
      <p className="mt-0.5 max-w-prose">
        A failing disk, its driver, or a program that writes into the agent's folder does that; a power cut alone does
        not. The agent has saved what is whole and goes on by itself. Once nobody needs the damaged files, remove them
        from the <span className="font-mono">stage</span> folder of its data directory: after its next start this note
        is gone, and the numbers stay.
      </p>
    </div>
  );
}

function WentBackAdvice({ agent }: { agent: Agent }) {
  return (
    <div role="status" className="m-3 rounded-md border border-warn bg-warn-soft px-3 py-2">
      <p className="font-medium text-warn">
        On {agent.hostname || "its machine"} an older copy of the agent's staging directory was put in its place.
      </p>
      <p className="mt-0.5 max-w-prose">
        Find out what did that: a restored backup, a snapshot of a virtual machine that was rolled back, or a tool that
        copies files. The agent has gone on by itself. What was never sent has got new numbers, so nothing of it is
        lost; its flows may repeat what they had read, and some insights may come twice. Once the cause is known, remove
        the <span className="font-mono">outbox.corrupt-*</span> file from the <span className="font-mono">stage</span>{" "}
        folder of its data directory: after its next start this note is gone.
      </p>
    </div>
  );
}

function Row({ file, agent }: { file: DamagedFile; agent: Agent }) {
  const again = [
    ...flowNames(agent, file.set_back).map((name) => `${name} goes on from an earlier state`),
    ...flowNames(agent, file.started_anew).map((name) => `${name} started anew`),
  ];
  return (
    <tr>
      <td>
        <Time time={file.at} />
      </td>
      <td className="min-w-56">
        <p className={file.lost > 0 ? "text-bad" : ""}>{damageResult(file)}</p>
        {again.map((text) => (
          <p key={text}>{text}; some of its insights may come twice.</p>
        ))}
      </td>
      <td className="min-w-56 wrap-anywhere">
        {file.reason ? (
          <p className="first-letter:uppercase">{file.reason}</p>
        ) : (
          <span className="text-muted">not known</span>
        )}
        <p className="font-mono text-xs text-muted">{file.file}</p>
      </td>
    </tr>
  );
}
