import { describe, expect, it } from "vitest";
import type { Agent } from "../api/types";
import { clockText, identityTroubles } from "./identity";

const day = 86_400;

const of = (over: Partial<Agent>) =>
  identityTroubles({ clock_skew_seconds: 0, os: "linux", last_seen_at: "2026-03-01T12:00:00Z", ...over } as Agent);

describe("a clock that is off", () => {
  it.each([
    [6, "6 s ahead"],
    [7200, "2 h ahead"],
    [-90, "1 min and 30 s behind"],
    [-2 * day, "2 days behind"],
    [-56 * 365 * day, "56 years behind"],
  ])("of %d s is told in words", (seconds, text) => {
    expect(clockText(seconds)).toBe(text);
  });

  it("comes with what to do on that system", () => {
    expect(of({ clock_skew_seconds: -5 })).toEqual([]);
    const [linux] = of({ clock_skew_seconds: -56 * 365 * day });
    expect(linux?.long).toBe("Its clock is 56 years behind the control plane's.");
    expect(linux?.command).toBe("sudo timedatectl set-ntp true");
    const [windows] = of({ clock_skew_seconds: 7200, os: "windows" });
    expect(windows?.long).toBe("Its clock is 2 h ahead of the control plane's.");
    expect(windows?.command).toBe("w32tm /resync");
  });
});

describe("a change of keys", () => {
  it("is late on an agent that was connected since, and on no other", () => {
    expect(of({ rotation_asked_at: "2026-03-01T11:55:00Z" })).toEqual([]);
    expect(of({ rotation_asked_at: "2026-03-01T12:30:00Z" })).toEqual([]);
    const [late] = of({ rotation_asked_at: "2026-03-01T11:00:00Z" });
    expect(late?.short).toBe("Keys not changed");
    expect(late?.command).toBe("outfeed-agent rotate-keys");
  });

  it("does not matter for a revoked agent, nor does its clock", () => {
    const revoked_at = "2026-03-01T12:00:00Z";
    expect(of({ revoked_at, rotation_asked_at: "2026-03-01T11:00:00Z", clock_skew_seconds: 9000 })).toEqual([]);
  });
});
