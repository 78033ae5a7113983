import { describe, expect, it } from "vitest";
import type { Agent, DamagedFile, FlowStatus, Outbox } from "../api/types";
import {
  damageResult,
  flowNames,
  fullness,
  missingReasons,
  neverCame,
  reasonText,
  recordText,
  runwayText,
  troubles,
} from "./outbox";
import { outbox } from "./outbox.sample";

const of = (over: Partial<Outbox>) => troubles({ outbox: outbox(over) } as Agent).map((t) => [t.severity, t.short]);

function damaged(over: Partial<DamagedFile>): DamagedFile {
  const at = "2026-03-01T06:00:00Z";
  return {
    file: "outbox-1.db.corrupt-1",
    at,
    reason: "page 3",
    salvaged: 0,
    lost: 0,
    set_back: [],
    started_anew: [],
    ...over,
  };
}

describe("troubles", () => {
  it("is silent when all is well, and when the room lasts", () => {
    expect(of({})).toEqual([]);
    expect(of({ late: 4, runway_seconds: 86_400, receipts: { restored: 3 } })).toEqual([]);
  });

  it("tells what is wrong, worst first", () => {
    expect(
      of({
        blocked: 2,
        blocked_by: "1 GiB waits",
        runway_seconds: 0,
        lost: 1200,
        lost_remotely: 34,
        expired: { expired_age: 5, expired_bytes: 6 },
        refused: 7,
        damaged_files: 4,
        damage: [damaged({}), damaged({ file: "state.db.corrupt-2" })],
      }),
    ).toEqual([
      ["bad", "Flows wait"],
      ["warn", "1\u202f234 lost"],
      ["warn", "11 expired"],
      ["warn", "2 damaged files"],
      ["warn", "7 refused"],
    ]);
    expect(of({ runway_seconds: 86_399 })).toEqual([["warn", "Room for 23 h and 59 min"]]);
    expect(of({ degraded: "the disk fails", blocked: 2 })).toEqual([["bad", "Cannot stage"]]);
    expect(of({ set_aside: [{ dir: "stage.of-a", agent_id: "a", waiting: 0 }] })).toEqual([]);
    expect(of({ set_aside: [{ dir: "stage.of-a", agent_id: "a", waiting: -1 }] })).toEqual([
      ["warn", "An earlier agent's insights"],
    ]);
    expect(of({ damage: [damaged({ file: "outbox.corrupt-20260301T060000.000000Z" })] })).toEqual([
      ["warn", "Staging went back"],
    ]);
    expect(of({ runway_seconds: 0 })).toEqual([["warn", "Room for 0 s"]]);
  });
});

describe("what never came", () => {
  it("is told by reason, the most frequent first", () => {
    const of = outbox({ receipts: { damaged: 2, expired_age: 1200, by_mood: 1, restored: 0 } });
    expect(neverCame(of)).toBe(1203);
    const told = missingReasons(of);
    expect(told.map(({ reason, n }) => [reason, n])).toEqual([
      ["expired_age", 1200],
      ["damaged", 2],
      ["by_mood", 1],
    ]);
    expect(told[0]?.what).toContain("staging.max_age");
    expect(told[1]?.advice).toContain("disk");
    expect(told[2]?.what).toContain("does not know");
  });

  it("shows what can be read of a refused record", () => {
    expect(recordText(btoa('\x0a\x03hot{"a":1}\xff\x1b'))).toBe('··hot{"a":1}··');
    expect(recordText(btoa("x".repeat(5000)))).toHaveLength(4001);
  });
});

describe("damaged files", () => {
  it("says what was saved", () => {
    expect(damageResult(damaged({ salvaged: 1200 }))).toBe("All 1\u202f200 insights salvaged.");
    expect(damageResult(damaged({ salvaged: 3, lost: 1 }))).toBe("1 insight lost, 3 salvaged.");
    expect(damageResult(damaged({}))).toBe("Nothing was lost.");
    expect(damageResult(damaged({ file: "state.db.corrupt-1" }))).toContain("rebuilt");
    expect(damageResult(damaged({ file: "outbox.corrupt-1" }))).toContain("went back");
  });

  it("names the flows that repeat, also those that are gone", () => {
    const flows = [{ deployment_id: "d1", name: "press" } as FlowStatus];
    const agent = { status: { flows } } as Agent;
    expect(flowNames(agent, ["d1", "d2", "(a flow whose name is lost)"])).toEqual([
      "press",
      "A flow that is no longer deployed (d2)",
      "A flow whose name is lost",
    ]);
  });
});

describe("the words of an outbox", () => {
  it("says how full it is and how long that lasts", () => {
    expect(fullness(outbox({ waiting_bytes: 250, room_bytes: 750 }))).toBe(0.25);
    expect(fullness(outbox({ waiting_bytes: 0, room_bytes: 0 }))).toBeUndefined();
    expect(runwayText(outbox({ runway_seconds: 273_600 }))).toBe("3 days and 4 h of room left at the present rate");
    expect(runwayText(outbox())).toBe("Does not fill at the present rate");
    expect(runwayText(outbox({ blocked: 1 }))).toBe("Full: flows wait");
  });

  it("reads reasons that it does not know", () => {
    expect(reasonText("expired_age")).toBe("Expired by age");
    expect(reasonText("expired_by_mood")).toBe("expired by mood");
  });
});
