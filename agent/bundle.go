package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

// bundles takes the desired state as it arrives, verifies it, keeps it, and has the supervisor make it so.
type bundles struct {
	identity   *identity.Identity
	stage      *stage.Stage
	supervisor *supervisor.Supervisor
	log        *slog.Logger
	// changed is called when the serial or the refusal has changed.
	changed func()

	mu      sync.Mutex
	serial  uint64
	refusal string
}

// resume applies the desired state of an earlier run, so that flows start without the control plane.
func (b *bundles) resume(ctx context.Context) error {
	envelope, _, err := b.stage.Desired(ctx)
	if errors.Is(err, stage.ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the desired state: %w", err)
	}
	if err := b.apply(envelope); err != nil {
		b.refuse(err)
		b.log.ErrorContext(ctx, "the desired state on this machine cannot be used; the control plane sends it again", "error", err)
	}
	return nil
}

// ApplyBundle is for the tunnel.
func (b *bundles) ApplyBundle(ctx context.Context, envelope []byte) error {
	err := b.accept(ctx, envelope)
	if err != nil {
		b.refuse(err)
	}
	return err
}

func (b *bundles) accept(ctx context.Context, envelope []byte) error {
	bundle, err := b.identity.OpenBundle(envelope)
	if err != nil {
		return err
	}
	held := b.DesiredSerial()
	if bundle.GetSerial() < held {
		return fmt.Errorf("the bundle of flows is refused: its serial %d is older than %d, which this agent has", bundle.GetSerial(), held)
	}
	deployments, err := b.deployments(bundle)
	if err != nil {
		return err
	}
	// It is kept before it is used, so that a restart does not fall back to what was before.
	if err := b.stage.PutDesired(ctx, envelope, bundle.GetSerial()); err != nil {
		return fmt.Errorf("keep the bundle of flows: %w", err)
	}
	b.use(bundle.GetSerial(), deployments)
	return nil
}

// apply uses an envelope that is kept already.
func (b *bundles) apply(envelope []byte) error {
	bundle, err := b.identity.OpenBundle(envelope)
	if err != nil {
		return err
	}
	deployments, err := b.deployments(bundle)
	if err != nil {
		return err
	}
	b.use(bundle.GetSerial(), deployments)
	return nil
}

func (b *bundles) use(serial uint64, deployments []supervisor.Deployment) {
	b.supervisor.Apply(deployments)
	b.mu.Lock()
	b.serial, b.refusal = serial, ""
	b.mu.Unlock()
	b.changed()
}

func (b *bundles) refuse(err error) {
	b.mu.Lock()
	b.refusal = err.Error()
	b.mu.Unlock()
	b.changed()
}

// DesiredSerial is for the tunnel.
func (b *bundles) DesiredSerial() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.serial
}

func (b *bundles) refused() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refusal
}

// deployments opens the credentials and gives each flow the connections of the bundle.
func (b *bundles) deployments(bundle *wire.Bundle) ([]supervisor.Deployment, error) {
	connections := make([]connector.Connection, 0, len(bundle.GetConnections()))
	for _, c := range bundle.GetConnections() {
		opened, err := b.connection(c)
		if err != nil {
			return nil, err
		}
		connections = append(connections, opened)
	}
	all := make([]supervisor.Deployment, 0, len(bundle.GetFlows()))
	for _, f := range bundle.GetFlows() {
		if sum := sha256.Sum256(f.GetDefinition()); !bytes.Equal(sum[:], f.GetSha256()) {
			return nil, fmt.Errorf("the bundle of flows is refused: the definition of flow %q does not match its hash", f.GetName())
		}
		all = append(all, supervisor.Deployment{
			ID: f.GetDeploymentId(), FlowID: f.GetFlowId(), Name: f.GetName(), Version: f.GetVersion(),
			Definition: f.GetDefinition(), Connections: usedBy(f.GetDefinition(), connections),
		})
	}
	return all, nil
}

// usedBy gives the connections that a definition reads, looks up or writes, so that a change of another one leaves its flow alone. One that
// cannot be parsed is the supervisor's to refuse.
func usedBy(definition []byte, connections []connector.Connection) []connector.Connection {
	flow, err := flowdef.Parse(definition)
	if err != nil {
		return connections
	}
	used := map[string]bool{}
	for _, ref := range flow.Connections() {
		used[ref.Name] = true
	}
	return slices.DeleteFunc(slices.Clone(connections), func(c connector.Connection) bool { return !used[c.Name] })
}

// connection reads a connection's options and opens its secrets.
func (b *bundles) connection(c *wire.BundleConnection) (connector.Connection, error) {
	out := connector.Connection{Name: c.GetName(), Kind: c.GetKind(), Options: map[string]any{}, Secrets: map[string]secret.String{}}
	d := json.NewDecoder(bytes.NewReader(c.GetOptionsJson()))
	d.UseNumber()
	if err := d.Decode(&out.Options); err != nil {
		return out, fmt.Errorf("the bundle of flows is refused: the options of connection %q cannot be read: %w", c.GetName(), err)
	}
	for name, v := range out.Options {
		if n, ok := v.(json.Number); ok {
			out.Options[name] = number(n)
		}
	}
	for field, sealed := range c.GetSealedSecrets() {
		opened, err := b.identity.OpenSecret(c.GetConnectionId(), field, sealed)
		if err != nil {
			return out, fmt.Errorf("the credential %q of connection %q cannot be opened: %w", field, c.GetName(), err)
		}
		out.Secrets[field] = opened
	}
	return out, nil
}

// number gives an option's number the type that a CONN.yaml would.
func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, err := n.Float64()
	if err != nil {
		return n.String()
	}
	return f
}
