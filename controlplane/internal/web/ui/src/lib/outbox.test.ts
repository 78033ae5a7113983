import { describe, expect, it } from "vitest";
import type { Agent, Outbox } from "../api/types";
import { fullness, reasonText, runwayText, troubles } from "./outbox";
import { outbox } from "./outbox.sample";

const of = (over: Partial<Outbox>) => troubles({ outbox: outbox(over) } as Agent).map((t) => [t.severity, t.short]);

describe("troubles", () => {
  it("is silent when all is well, and when the room lasts", () => {
    expect(of({})).toEqual([]);
    expect(of({ late: 4, runway_seconds: 86_400, receipts: { restored: 3 } })).toEqual([]);
  });

  it("tells what is wrong, worst first", () => {
    expect(
      of({
        degraded: "the disk is full",
        blocked: 2,
        blocked_by: "1 GiB waits",
        runway_seconds: 0,
        lost: 1200,
        lost_remotely: 34,
        expired: { expired_age: 5, expired_bytes: 6 },
        refused: 7,
      }),
    ).toEqual([
      ["bad", "Cannot stage"],
      ["bad", "Flows wait"],
      ["warn", "1\u202f234 lost"],
      ["warn", "11 expired"],
      ["warn", "7 refused"],
    ]);
    expect(of({ runway_seconds: 86_399 })).toEqual([["warn", "Room for 23 h and 59 min"]]);
    expect(of({ runway_seconds: 0 })).toEqual([["warn", "Room for 0 s"]]);
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
