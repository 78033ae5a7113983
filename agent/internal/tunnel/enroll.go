package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Enrolment is what a machine says of itself to become an agent.
type Enrolment struct {
	Link Link
	// Key is the new agent's Ed25519 key, and ReceiveKey the public half of its X25519 key, 32 bytes.
	Key        ed25519.PrivateKey
	ReceiveKey []byte
	Host       *wire.Host
	Labels     map[string]string
	Log        *slog.Logger
}

// Enroll uses the token. It talks only to the control plane whose fingerprint the token carries; another one gives a
// *seal.FingerprintError. A refusal of the token is a *RefusedError.
func Enroll(ctx context.Context, e Enrolment, token seal.Token) (*wire.Enrolled, error) {
	link, err := newDialer(e.Link)
	if err != nil {
		return nil, err
	}
	streams, _, err := link.connect(ctx, e.Key, token.Fingerprint, e.Log)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = streams.Close() })
	defer stop()
	enrolled, err := enroll(streams, e, token)
	if err = errors.Join(err, streams.Close()); err != nil {
		return nil, err
	}
	if enrolled.GetTenantId() != token.Tenant {
		return nil, fmt.Errorf("the control plane enrolled this agent for tenant %s, but the token is of tenant %s", enrolled.GetTenantId(), token.Tenant)
	}
	return enrolled, nil
}

func enroll(streams *mux.Session, e Enrolment, token seal.Token) (*wire.Enrolled, error) {
	control, err := openStream(streams, wire.KindControl)
	if err != nil {
		return nil, err
	}
	ask := &wire.ControlUp{Message: &wire.ControlUp_Enroll{Enroll: &wire.Enroll{
		TokenId: token.ID, TokenSecret: token.SecretText(), TokenTenant: token.Tenant,
		X25519PublicKey: e.ReceiveKey, Host: e.Host, Labels: e.Labels,
	}}}
	if err = wire.WriteMessage(control, ask); err != nil {
		return nil, err
	}
	answer, err := readAnswer(control)
	if err != nil {
		return nil, err
	}
	enrolled := answer.GetEnrolled()
	if enrolled == nil {
		return nil, fmt.Errorf("the control plane answered the enrolment with a %T", answer.GetMessage())
	}
	return enrolled, nil
}

func openStream(streams *mux.Session, kind wire.Kind) (*mux.Stream, error) {
	stream, err := streams.Open()
	if err != nil {
		return nil, err
	}
	if err = wire.WriteMessage(stream, wire.NewHeader(kind)); err != nil {
		return nil, err
	}
	return stream, nil
}

// readAnswer reads what the control plane says to an Enroll or a Hello, within bounds of time.
func readAnswer(control *mux.Stream) (*wire.ControlDown, error) {
	if err := control.SetReadDeadline(time.Now().Add(stepTimeout)); err != nil {
		return nil, err
	}
	answer := &wire.ControlDown{}
	if err := wire.ReadMessage(control, answer); err != nil {
		return nil, fmt.Errorf("wait for the control plane's answer: %w", err)
	}
	if r := answer.GetRefusal(); r != nil {
		return nil, refused(r)
	}
	return answer, control.SetReadDeadline(time.Time{})
}
