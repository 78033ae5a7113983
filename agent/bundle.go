package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

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
	applied []supervisor.Deployment
	// connections are those of the bundle that is used, also for versions of before.
	connections []connector.Connection
	refusal     *refusedError
	counts      map[string]uint64
	// clock is the control plane's time when it last told it, told when that was by this machine's monotonic clock.
	clock int64
	told  time.Time
}

// resume applies the desired state of an earlier run, so that flows start without the control plane. When it was issued
// and when it expires no longer matters: it was accepted in time.
func (b *bundles) resume(ctx context.Context) error {
	envelope, _, err := b.stage.Desired(ctx)
	if errors.Is(err, stage.ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the desired state: %w", err)
	}
	bundle, err := b.open(envelope)
	var deployments []supervisor.Deployment
	if err == nil {
		deployments, err = b.deployments(bundle)
	}
	if err != nil {
		b.refuse(ctx, fmt.Errorf("the desired state on this machine cannot be used; the control plane sends it again: %w", err))
		return nil
	}
	b.use(bundle.GetSerial(), deployments)
	return nil
}

// ApplyBundle is for the tunnel. A refusal is reported here and is no error of the tunnel's.
func (b *bundles) ApplyBundle(ctx context.Context, envelope []byte) error {
	err := b.accept(ctx, envelope)
	if err == nil {
		return nil
	}
	if b.refuse(ctx, err); errors.As(err, new(*refusedError)) {
		return nil
	}
	return err
}

func (b *bundles) accept(ctx context.Context, envelope []byte) error {
	if len(envelope) > wire.MaxBundle {
		return refusal(bundleTooLarge, "it has %d bytes, and at most %d are taken; deploy fewer or smaller flows to this agent", len(envelope), wire.MaxBundle)
	}
	bundle, err := b.open(envelope)
	if err != nil {
		return err
	}
	if err = b.inTime(bundle); err != nil {
		return err
	}
	held := b.DesiredSerial()
	if bundle.GetSerial() < held {
		return refusal(bundleOlder, "its serial %d is older than %d, which this agent has: an old bundle was sent again, or the control plane's database was set back; any change of this agent's flows raises the serial", bundle.GetSerial(), held)
	}
	deployments, err := b.deployments(bundle)
	if err != nil {
		return err
	}
	if bundle.GetSerial() == held && !b.appliesAlready(deployments) {
		return refusal(bundleConflicting, "its serial %d is the one that this agent has, and it says something else: two control planes sign for this agent, or its database was set back; any change of this agent's flows raises the serial", held)
	}
	// It is kept before it is used, so that a restart does not fall back to what was before.
	err = onceRepaired(ctx, b.stage, func() error { return b.stage.PutDesired(ctx, envelope, bundle.GetSerial()) })
	if errors.Is(err, stage.ErrOlderDesired) {
		return refusal(bundleOlder, "%w", err)
	}
	if err != nil {
		return fmt.Errorf("keep the bundle of flows: %w", err)
	}
	b.use(bundle.GetSerial(), deployments)
	return nil
}

// open checks who signed an envelope and for whom, and decodes it.
func (b *bundles) open(envelope []byte) (*wire.Bundle, error) {
	bundle, err := b.identity.OpenBundle(envelope)
	if err != nil {
		return nil, refusal(whyNotOpen(envelope, err), "%w", err)
	}
	return bundle, nil
}

// appliesAlready says whether the deployments are those that run. Before any are known, everything is.
func (b *bundles) appliesAlready(deployments []supervisor.Deployment) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.serial == 0 {
		return true
	}
	sorted := func(list []supervisor.Deployment) []supervisor.Deployment {
		return slices.SortedFunc(slices.Values(list), func(a, b supervisor.Deployment) int { return cmp.Compare(a.ID, b.ID) })
	}
	return slices.EqualFunc(sorted(deployments), sorted(b.applied), func(a, b supervisor.Deployment) bool { return a.Same(&b) })
}

func (b *bundles) use(serial uint64, deployments []supervisor.Deployment) {
	b.mu.Lock()
	b.serial, b.refusal, b.applied = serial, nil, deployments
	b.connections = nil
	for _, d := range deployments {
		b.connections = append(b.connections, d.Connections...)
	}
	b.mu.Unlock()
	b.supervisor.Apply(deployments)
	b.changed()
}

// DesiredSerial is for the tunnel.
func (b *bundles) DesiredSerial() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.serial
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
			return nil, refusal(bundleHash, "the definition of flow %q does not match its hash", f.GetName())
		}
		d := supervisor.Deployment{
			ID: f.GetDeploymentId(), FlowID: f.GetFlowId(), Name: f.GetName(), Version: f.GetVersion(),
			Definition: f.GetDefinition(), Connections: usedBy(f.GetDefinition(), connections),
		}
		var err error
		if d.Origin, err = origin(f, bundle.GetConnections(), d.Connections); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// origin is a flow and its connections as they came, with the secrets still sealed.
func origin(f *wire.BundleFlow, all []*wire.BundleConnection, used []connector.Connection) ([]byte, error) {
	one := &wire.Bundle{Flows: []*wire.BundleFlow{f}}
	for _, c := range all {
		if slices.ContainsFunc(used, func(u connector.Connection) bool { return u.Name == c.GetName() }) {
			one.Connections = append(one.Connections, c)
		}
	}
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(one)
	if err != nil {
		return nil, refusal(bundleUndecodable, "flow %q cannot be kept: %w", f.GetName(), err)
	}
	return out, nil
}

// reopen is for the supervisor: it makes a deployment of an origin. Its connections are those of the bundle that is used
// now, where it has them, because their credentials may have changed since.
func (b *bundles) reopen(kept []byte) (supervisor.Deployment, error) {
	var one wire.Bundle
	if err := proto.Unmarshal(kept, &one); err != nil || len(one.GetFlows()) != 1 {
		return supervisor.Deployment{}, errors.Join(errors.New("what was kept of the version is damaged"), err)
	}
	b.mu.Lock()
	now := slices.Clone(b.connections)
	b.mu.Unlock()
	var connections []connector.Connection
	for _, c := range one.GetConnections() {
		i := slices.IndexFunc(now, func(n connector.Connection) bool { return n.Name == c.GetName() && n.Kind == c.GetKind() })
		if i >= 0 {
			connections = append(connections, now[i])
			continue
		}
		opened, err := b.connection(c)
		if err != nil {
			return supervisor.Deployment{}, err
		}
		connections = append(connections, opened)
	}
	f := one.GetFlows()[0]
	return supervisor.Deployment{
		ID: f.GetDeploymentId(), FlowID: f.GetFlowId(), Name: f.GetName(), Version: f.GetVersion(),
		Definition: f.GetDefinition(), Connections: connections, Origin: kept,
	}, nil
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
		return out, refusal(bundleUndecodable, "the options of connection %q cannot be read: %w", c.GetName(), err)
	}
	for name, v := range out.Options {
		if n, ok := v.(json.Number); ok {
			out.Options[name] = number(n)
		}
	}
	for field, sealed := range c.GetSealedSecrets() {
		opened, err := b.identity.OpenSecret(c.GetConnectionId(), field, sealed)
		if err != nil {
			return out, refusal(bundleCredential, "the credential %q of connection %q cannot be opened: %w; store it again in the control plane", field, c.GetName(), err)
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
