// Package fleet is the domain of the control plane: tenants, agents, connections, flows, deployments, runs, insights.
//
// It holds the rules and the words, no SQL and no HTTP. Storage, key keeping and everything else outside comes through
// ports that it declares. A Service is safe for concurrent use. The tenant of every call is the Actor's, who was
// authenticated; no call takes it from a request.
package fleet
