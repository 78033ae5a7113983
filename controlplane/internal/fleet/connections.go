package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// DecodeOptions reads a JSON object as options: whole numbers as int64, others as float64.
func DecodeOptions(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("read the options of a connection: %w", err)
	}
	for k, v := range out {
		out[k] = plain(v)
	}
	return out, nil
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
		return v
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
		return v
	default:
		return v
	}
}

// Connections lists the workspace's connections.
func (s *Service) Connections(ctx context.Context, a Actor) (out []Connection, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.Connections(ctx, a.Workspace)
		return err
	})
	return out, err
}

// Connection finds a connection by id or name.
func (s *Service) Connection(ctx context.Context, a Actor, ref string) (out Connection, err error) {
	if err := require(a, Viewer); err != nil {
		return Connection{}, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.ConnectionByRef(ctx, a.Workspace, ref)
		return found(err, "connection", ref)
	})
	return out, err
}

// ApplyConnection makes or changes the connection of that name.
func (s *Service) ApplyConnection(ctx context.Context, a Actor, c Connection) (Connection, error) {
	if err := require(a, Editor); err != nil {
		return Connection{}, err
	}
	if err := checkName("the connection's name", c.Name); err != nil {
		return Connection{}, err
	}
	var out Connection
	err := s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		specs, err := connectors(ctx, tx, a.Workspace)
		if err != nil {
			return err
		}
		spec, err := specOf(specs, c.Kind)
		if err != nil {
			return err
		}
		next, err := split(c, spec)
		if err != nil {
			return err
		}
		if err := refuseClear(next.Options, spec); err != nil {
			return err
		}
		name, err := s.putConnection(ctx, tx, a, next, spec)
		if err != nil {
			return err
		}
		out, err = tx.ConnectionByRef(ctx, a.Workspace, name)
		return err
	})
	if err != nil {
		return Connection{}, err
	}
	return out, nil
}

// putConnection makes or changes a connection and gives its name. Given was its name, or the id of one that is there.
func (s *Service) putConnection(ctx context.Context, tx Tx, a Actor, c Connection, spec flowdef.ConnectorSpec) (string, error) {
	ref := c.Name
	byID := isID(ID(strings.ToLower(ref)))
	if byID {
		ref = strings.ToLower(ref)
	}
	old, err := tx.ConnectionByRef(ctx, a.Workspace, ref)
	switch {
	case errors.Is(err, ErrNoRow) && byID:
		return "", fail(Invalid, "there is no connection with the id %q, and a new one cannot have a name that looks like an id; give it a name that people can tell apart", c.Name)
	case errors.Is(err, ErrNoRow):
		return c.Name, s.createConnection(ctx, tx, a, c, spec)
	case err != nil:
		return "", err
	}
	c.Name = old.Name
	return c.Name, s.updateConnection(ctx, tx, a, change{old: old, next: c, spec: spec})
}

// specOf finds the description of a kind. Without one nobody could tell which options are secret.
func specOf(specs map[string]flowdef.ConnectorSpec, kind string) (flowdef.ConnectorSpec, error) {
	if len(specs) == 0 {
		return flowdef.ConnectorSpec{}, fail(Conflict, "no agent of this workspace has connected yet, so it is not known what a connection of kind %q takes: start an agent first", kind)
	}
	spec, ok := specs[kind]
	if !ok {
		return spec, fail(Invalid, "no agent of this workspace offers connections of kind %q; there are %s", kind,
			strings.Join(slices.Sorted(maps.Keys(specs)), ", "))
	}
	return spec, nil
}

// split sorts a connection's settings into options and secrets, wherever the caller put them, and drops nulls.
func split(c Connection, spec flowdef.ConnectorSpec) (Connection, error) {
	text, err := json.Marshal(c.Options)
	if err != nil {
		return c, &Error{Code: Invalid, Message: "the connection's options cannot be written as JSON", Err: err}
	}
	options, err := DecodeOptions(text)
	if err != nil {
		return c, err
	}
	if options == nil {
		options = map[string]any{}
	}
	secrets := maps.Clone(c.Secrets)
	if secrets == nil {
		secrets = map[string]secret.String{}
	}
	for name, v := range options {
		if v == nil {
			delete(options, name)
		}
	}
	for _, o := range spec.Options {
		v, given := options[o.Name]
		if o.Type != flowdef.OptionSecret || !given {
			continue
		}
		text, ok := v.(string)
		if !ok {
			return c, fail(Invalid, "option %q is a text", o.Name)
		}
		secrets[o.Name] = secret.New(text)
		delete(options, o.Name)
	}
	for name, v := range secrets {
		if hasNUL(v.Reveal()) {
			return c, fail(Invalid, "the secret %q holds a NUL character; remove it", name)
		}
		isSecret := func(o flowdef.Option) bool { return o.Name == name && o.Type == flowdef.OptionSecret }
		if !slices.ContainsFunc(spec.Options, isSecret) {
			return c, fail(Invalid, "%q is no secret of a connection of kind %q", name, spec.Kind)
		}
	}
	c.Options, c.Secrets = options, secrets
	return c, nil
}

// validate holds the settings against the connector's description. Kept are the secrets that stay.
func validate(c Connection, kept []string, spec flowdef.ConnectorSpec) error {
	all := maps.Clone(c.Options)
	for _, name := range kept {
		// Its own value was validated when it came.
		all[name] = "kept"
	}
	for name, v := range c.Secrets {
		all[name] = v.Reveal()
	}
	if err := flowdef.ValidateOptions(spec.Options, all); err != nil {
		// It names options and never repeats a secret.
		return fail(Invalid, "the connection %q has options that cannot be right: %v", c.Name, err)
	}
	return nil
}

func (s *Service) createConnection(ctx context.Context, tx Tx, a Actor, c Connection, spec flowdef.ConnectorSpec) error {
	if err := validate(c, nil, spec); err != nil {
		return err
	}
	var err error
	if c.ID, err = newID(); err != nil {
		return err
	}
	if err := tx.CreateConnection(ctx, a.Workspace, c); err != nil {
		return err
	}
	if err := s.putSecrets(ctx, tx, a.Tenant, c, nil); err != nil {
		return err
	}
	return changedConnection(ctx, tx, a, "create", c)
}

// putSecrets encrypts and stores the connection's new secrets, each under its next version.
func (s *Service) putSecrets(ctx context.Context, tx Tx, tenant ID, c Connection, stored []StoredSecret) error {
	for _, name := range slices.Sorted(maps.Keys(c.Secrets)) {
		next := StoredSecret{Field: name, Version: 1}
		for _, old := range stored {
			if old.Field == name {
				next.Version = old.Version + 1
			}
		}
		var err error
		next.SealedSecret, err = s.secrets.Seal(SecretRef{Tenant: tenant, Connection: c.ID, Field: name, Version: next.Version}, []byte(c.Secrets[name].Reveal()))
		if err != nil {
			return err
		}
		if err := tx.PutSecret(ctx, c.ID, next); err != nil {
			return err
		}
	}
	return nil
}

// change is a connection before and after.
type change struct {
	old, next Connection
	spec      flowdef.ConnectorSpec
}

func (s *Service) updateConnection(ctx context.Context, tx Tx, a Actor, ch change) error {
	uses, err := tx.ConnectionUses(ctx, a.Workspace, ch.old.Name)
	if err != nil {
		return err
	}
	stored, err := tx.Secrets(ctx, ch.old.ID)
	if err != nil {
		return err
	}
	kept := ch.old.SecretNames
	if ch.old.Kind != ch.next.Kind {
		if len(uses) > 0 {
			return fail(Conflict, "the connection %q is of kind %q and the flow %q reads it: undeploy the flow before you change the kind", ch.old.Name, ch.old.Kind, uses[0].FlowName)
		}
		// A secret of another kind means something else.
		for _, name := range kept {
			if err := tx.DeleteSecret(ctx, ch.old.ID, name); err != nil {
				return err
			}
		}
		kept = nil
	}
	if err := validate(ch.next, kept, ch.spec); err != nil {
		return err
	}
	ch.next.ID = ch.old.ID
	same, err := s.unchanged(a.Tenant, ch, stored)
	if err != nil || same {
		return err
	}
	if err := tx.UpdateConnection(ctx, ch.next); err != nil {
		return err
	}
	if err := s.putSecrets(ctx, tx, a.Tenant, ch.next, stored); err != nil {
		return err
	}
	var agents []ID
	for _, u := range uses {
		if !slices.Contains(agents, u.Agent) {
			agents = append(agents, u.Agent)
		}
	}
	if err := giveAgents(ctx, tx, a.Workspace, agents); err != nil {
		return err
	}
	return changedConnection(ctx, tx, a, "update", ch.next)
}

// unchanged says whether applying would change nothing, so that applying the same file again disturbs no flow.
func (s *Service) unchanged(tenant ID, ch change, stored []StoredSecret) (bool, error) {
	before, err := json.Marshal(ch.old.Options)
	if err != nil {
		return false, fmt.Errorf("compare options: %w", err)
	}
	after, err := json.Marshal(ch.next.Options)
	if err != nil {
		return false, fmt.Errorf("compare options: %w", err)
	}
	if ch.old.Kind != ch.next.Kind || !bytes.Equal(before, after) {
		return false, nil
	}
	for name, v := range ch.next.Secrets {
		i := slices.IndexFunc(stored, func(x StoredSecret) bool { return x.Field == name })
		if i < 0 {
			return false, nil
		}
		old, err := s.secrets.Open(SecretRef{Tenant: tenant, Connection: ch.old.ID, Field: name, Version: stored[i].Version}, stored[i].SealedSecret)
		// One that does not open, because the master key was lost, is what a new one is entered for.
		if err != nil || string(old) != v.Reveal() {
			return false, nil //nolint:nilerr // see above
		}
	}
	return true, nil
}

// changedConnection tells replicas and the audit log, which gets no secret and no option.
func changedConnection(ctx context.Context, tx Tx, a Actor, verb string, c Connection) error {
	if err := tx.Notify(ctx, Notice{Event: Event{Kind: "connection", ID: c.ID}, Workspace: a.Workspace}); err != nil {
		return err
	}
	return audit(ctx, tx, a, object{"connection", c.ID, c.Name}, what{verb, map[string]any{"kind": c.Kind, "secrets_set": slices.Sorted(maps.Keys(c.Secrets))}})
}

// DeleteConnection removes a connection that no deployed flow uses.
func (s *Service) DeleteConnection(ctx context.Context, a Actor, ref string) error {
	if err := require(a, Editor); err != nil {
		return err
	}
	return s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		c, err := tx.ConnectionByRef(ctx, a.Workspace, ref)
		if err != nil {
			return found(err, "connection", ref)
		}
		uses, err := tx.ConnectionUses(ctx, a.Workspace, c.Name)
		if err != nil {
			return err
		}
		if len(uses) > 0 {
			return fail(Conflict, "the flow %q, which is deployed, reads the connection %q: undeploy it first", uses[0].FlowName, c.Name)
		}
		if err := tx.DeleteConnection(ctx, c.ID); err != nil {
			return err
		}
		return changedConnection(ctx, tx, a, "delete", c)
	})
}
