// Short names for the API's types, which schema.d.ts holds as generated from the OpenAPI document.

import type { components } from "./schema";

type Schemas = components["schemas"];

export type Me = Schemas["Me"];
export type Agent = Schemas["Agent"];
export type Outbox = Schemas["Outbox"];
export type DamagedFile = Schemas["DamagedFile"];
export type AgentLock = Schemas["AgentLock"];
export type LockSide = Schemas["LockSide"];
export type AgentTokenCreated = Schemas["AgentTokenCreated"];
export type FlowStatus = Schemas["FlowStatus"];
export type Connection = Schemas["Connection"];
export type Flow = Schemas["Flow"];
export type Deployment = Schemas["Deployment"];
export type FlowVersion = Schemas["FlowVersion"];
export type EgressColumn = Schemas["EgressColumn"];
export type FlowWrite = Schemas["FlowWrite"];
export type Run = Schemas["Run"];
export type Insight = Schemas["Insight"];
export type InsightName = Schemas["InsightName"];

/** The data of each server-sent event, by its name. */
export interface Events {
  insights: Schemas["InsightsEvent"];
  run: Schemas["RunEvent"];
  agent: Schemas["AgentEvent"];
  flow: Schemas["FlowEvent"];
  connection: Schemas["ConnectionEvent"];
}
