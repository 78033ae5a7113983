package fleet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outfeed/outfeed/protocol/seal"
)

// Tenancy is how many tenants a control plane takes.
type Tenancy string

// The tenancies. The empty one is ManyTenants.
const (
	ManyTenants Tenancy = "many"
	OneTenant   Tenancy = "one"
)

// Settings is what a Service works with.
type Settings struct {
	Store   Store
	Secrets SecretKeeper
	// Identity is the public key that the control plane proves in the tunnel; enrolment tokens carry its fingerprint.
	Identity ed25519.PublicKey
	// BundleKey signs what agents run.
	BundleKey ed25519.PrivateKey
	// Replica names this process among the control plane's.
	Replica string
	Tenancy Tenancy
	// Tester runs the tests of a definition before it is published.
	Tester FlowTester
}

// Service is the domain: API and Sessions for people, and Gateway for agents.
type Service struct {
	store       Store
	secrets     SecretKeeper
	fingerprint string
	bundleKey   ed25519.PrivateKey
	replica     string
	tenancy     Tenancy
	tester      FlowTester
	turns       *turns
}

var (
	_ API      = (*Service)(nil)
	_ Sessions = (*Service)(nil)
	_ Gateway  = (*Service)(nil)
)

// New makes a Service.
func New(s Settings) *Service {
	return &Service{
		store: s.Store, secrets: s.Secrets, fingerprint: seal.Fingerprint(s.Identity), bundleKey: s.BundleKey, replica: s.Replica,
		tenancy: s.Tenancy, tester: s.Tester, turns: &turns{tenants: map[ID]*turn{}},
	}
}

// Fingerprint is the control plane's, which agents pin: the SHA-256 of its Ed25519 public key, in hex.
func (s *Service) Fingerprint() string { return s.fingerprint }

// Ready says why the control plane cannot serve, or nil.
func (s *Service) Ready(ctx context.Context) error { return public(s.store.Ready(ctx)) }

// write runs fn in a transaction of the tenant.
func (s *Service) write(ctx context.Context, tenant ID, fn func(context.Context, Tx) error) error {
	return public(s.store.InTenant(ctx, tenant, fn))
}

// read runs fn on a snapshot of the tenant.
func (s *Service) read(ctx context.Context, tenant ID, fn func(context.Context, Tx) error) error {
	return public(s.store.Snapshot(ctx, tenant, fn))
}

// public makes every error an *Error.
func public(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, ErrUnreachable):
		return &Error{Code: Unavailable, Message: "the control plane cannot reach its database; try again in a moment", Err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Unavailable, Message: "the request was given up before it was done", Err: err}
	default:
		return &Error{Code: Internal, Message: "the control plane failed at this by a fault of its own; its log says more", Err: err}
	}
}

func fail(code Code, format string, a ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, a...)}
}

// found turns a missing row into an error that names what is missing and the command that lists what there is.
func found(err error, kind, ref string) error {
	if errors.Is(err, ErrNoRow) {
		return fail(NotFound, "there is no %s %q in this workspace; `outfeed %s list` shows what there is", kind, ref, strings.ReplaceAll(kind, " ", "-"))
	}
	return err
}

// rank orders the roles; 0 is no role.
func rank(r Role) int {
	switch r {
	case Owner:
		return 4
	case Editor:
		return 3
	case Operator:
		return 2
	case Viewer:
		return 1
	default:
		return 0
	}
}

// require refuses an actor whose role is less than the one needed.
func require(a Actor, needed Role) error {
	if a.Tenant == "" || a.Workspace == "" {
		return fail(Unauthorized, "sign in first: this call needs an API key")
	}
	if rank(a.Role) < rank(needed) {
		return fail(Forbidden, "this needs the role %s, and %s %q has %s; ask an owner of the workspace", needed, strings.ReplaceAll(a.Kind, "_", " "), a.Name, a.Role)
	}
	return nil
}

// newID makes an id that sorts by the time of its making.
func newID() (ID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return ID(u.String()), nil
}

// isID says whether it is a UUID as this domain writes them.
func isID(id ID) bool {
	u, err := uuid.Parse(string(id))
	return err == nil && u.String() == string(id)
}

// checkName refuses names that people could not tell apart or type. What says whose name it is.
func checkName(what, name string) error {
	const longest = 100
	bad := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	switch {
	case strings.TrimSpace(name) == "":
		return fail(Invalid, "%s is missing", what)
	case len(name) > longest:
		return fail(Invalid, "%s has %d bytes; at most %d are allowed", what, len(name), longest)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, bad):
		return fail(Invalid, "%s %q has space around it or characters that cannot be seen; remove them", what, name)
	}
	return nil
}

// checkLabels bounds labels and their texts.
func checkLabels(labels map[string]string) error {
	if len(labels) > 32 {
		return fail(Invalid, "there are %d labels; at most 32 are allowed", len(labels))
	}
	for k, v := range labels {
		if err := checkName("the name of a label", k); err != nil {
			return err
		}
		if strings.ContainsAny(k, "= ,") {
			return fail(Invalid, "the label %q holds a space, a comma or an equals sign; leave it out", k)
		}
		if err := checkName("the value of the label "+k, v); err != nil {
			return err
		}
	}
	return nil
}

// clean makes text from outside storable: PostgreSQL keeps no NUL, and a bound keeps a fault from filling it.
func clean(text string, longest int) string {
	if len(text) > longest {
		text = text[:longest]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}
