// An outbox in which all is well, for tests.

import type { Outbox } from "../api/types";

export function outbox(over: Partial<Outbox> = {}): Outbox {
  return {
    produced: 0,
    sent: 0,
    acknowledged: 0,
    waiting_records: 0,
    waiting_bytes: 0,
    room_bytes: 1000,
    runway_seconds: -1,
    late: 0,
    expired: { expired_age: 0, expired_bytes: 0 },
    lost: 0,
    lost_remotely: 0,
    damaged_files: 0,
    salvaged: 0,
    damage: [],
    set_aside: [],
    blocked: 0,
    accounted: 0,
    stored: 0,
    refused: 0,
    receipts: {},
    ...over,
  };
}
