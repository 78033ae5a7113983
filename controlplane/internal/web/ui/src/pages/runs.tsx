import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { agentsQuery, flowsQuery, type RunFilter, runsQuery } from "../api/queries";
import { RunTable } from "../components/runtable";
import { Empty, Loaded, PageHead, Panel, Select } from "../components/ui";

const statuses = [
  ["", "any"],
  ["ok", "OK"],
  ["running", "running"],
  ["failed", "failed"],
  ["stopped", "stopped"],
] as const;

export function Runs() {
  const filter = useSearch({ from: "/runs" });
  const navigate = useNavigate({ from: "/runs" });
  const runs = useQuery(runsQuery(filter));
  const flows = useQuery(flowsQuery);
  const agents = useQuery(agentsQuery);
  const set = (change: RunFilter) => void navigate({ search: (was) => ({ ...was, ...change }), replace: true });
  const names = (list: { id: string; name: string }[] | undefined) => [
    ["", "all"] as const,
    ...(list ?? []).map(({ id, name }) => [id, name] as const),
  ];
  const filtered = Boolean(filter.flow || filter.agent || filter.status);
  return (
    <>
      <PageHead title="Runs">
        <Select
          label="Flow"
          value={filter.flow ?? ""}
          options={names(flows.data)}
          onChange={(v) => set({ flow: v || undefined })}
        />
        <Select
          label="Agent"
          value={filter.agent ?? ""}
          options={names(agents.data)}
          onChange={(v) => set({ agent: v || undefined })}
        />
        <Select
          label="Status"
          value={filter.status ?? ""}
          options={statuses}
          onChange={(v) => set({ status: v || undefined })}
        />
      </PageHead>
      <Panel title="Newest runs" aside="a batch run, or one interval of a continuous flow">
        <Loaded query={runs}>
          {(list) => {
            if (list.length > 0) return <RunTable runs={list} of="all" />;
            return filtered ? (
              <Empty title="No run matches">Choose another flow, agent or status.</Empty>
            ) : (
              <Empty title="No run has been reported yet" command="outfeed flow deploy FLOW AGENT">
                Agents report each run of a flow. Deploy a flow to see the first:
              </Empty>
            );
          }}
        </Loaded>
      </Panel>
    </>
  );
}
