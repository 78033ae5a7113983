package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	tokenPrefix  = "oft_"
	tokenVersion = 1
	uuidSize     = 16
	// SecretSize is the size of a token's secret, in bytes.
	SecretSize = 32
	// checkSize is how many bytes of the SHA-256 of all before them end the token, to notice a miscopied one.
	checkSize = 4
	tokenSize = 1 + uuidSize + uuidSize + sha256.Size + SecretSize + checkSize
)

// Token is a one-use enrolment token: who may enrol, and whom the new agent may trust.
type Token struct {
	// ID and Tenant are UUIDs as text, in lower case.
	ID, Tenant string
	// Fingerprint is that of the control plane's Ed25519 key.
	Fingerprint string
	// Secret proves the token. The control plane stores only a hash of SecretText.
	Secret [SecretSize]byte
}

// NewToken makes a token with a fresh secret.
func NewToken(id, tenant, fingerprint string) (Token, error) {
	t := Token{ID: id, Tenant: tenant, Fingerprint: fingerprint}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return Token{}, fmt.Errorf("read randomness for the token: %w", err)
	}
	return t, nil
}

// SecretText is the secret as it travels in wire.Enroll.token_secret: base64url without padding, 43 characters.
func (t Token) SecretText() string { return base64.RawURLEncoding.EncodeToString(t.Secret[:]) }

// String names the token without its secret, so that printing one by accident gives nothing away.
func (t Token) String() string { return "enrolment token " + t.ID }

// GoString keeps %#v from showing the secret.
func (t Token) GoString() string { return t.String() }

// MarshalText keeps encoders and slog from writing the secret; EncodeToken is the one way to the text.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// EncodeToken writes a token as one line of 139 characters that people copy: "oft_" and base64url.
func EncodeToken(t Token) (string, error) {
	raw := make([]byte, 0, tokenSize)
	raw = append(raw, tokenVersion)
	for _, id := range []string{t.ID, t.Tenant} {
		u, err := parseUUID(id)
		if err != nil {
			return "", err
		}
		raw = append(raw, u[:]...)
	}
	fingerprint, err := parseFingerprint(t.Fingerprint)
	if err != nil {
		return "", err
	}
	raw = append(raw, fingerprint[:]...)
	raw = append(raw, t.Secret[:]...)
	sum := sha256.Sum256(raw)
	raw = append(raw, sum[:checkSize]...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw), nil
}

// ParseToken reads the text of a token. White space around it is ignored; everything else must be exact. Errors never
// contain the text.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("this is not an enrolment token: those start with %q; make one with: outfeed agent token", tokenPrefix)
	}
	if strings.ContainsAny(body, " \t\r\n") {
		return Token{}, errors.New("the enrolment token has a space or a line break inside; copy it as one line")
	}
	want := base64.RawURLEncoding.EncodedLen(tokenSize)
	if len(body) < want {
		return Token{}, fmt.Errorf("the enrolment token was cut off: it has %d characters instead of %d; copy all of it", len(body)+len(tokenPrefix), want+len(tokenPrefix))
	}
	if len(body) > want {
		return Token{}, fmt.Errorf("the enrolment token has %d characters instead of %d; copy only the token", len(body)+len(tokenPrefix), want+len(tokenPrefix))
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return Token{}, errors.New("the enrolment token has a character that no token has; copy it again")
	}
	sum := sha256.Sum256(raw[:tokenSize-checkSize])
	if !bytes.Equal(sum[:checkSize], raw[tokenSize-checkSize:]) {
		return Token{}, errors.New("the enrolment token was miscopied (its checksum does not match); copy it again")
	}
	if raw[0] != tokenVersion {
		return Token{}, fmt.Errorf("the enrolment token has version %d and this program knows %d; update the older of agent and control plane", raw[0], tokenVersion)
	}
	var t Token
	t.ID, raw = formatUUID(raw[1:]), raw[1+uuidSize:]
	t.Tenant, raw = formatUUID(raw), raw[uuidSize:]
	t.Fingerprint, raw = hex.EncodeToString(raw[:sha256.Size]), raw[sha256.Size:]
	copy(t.Secret[:], raw)
	return t, nil
}

func formatUUID(raw []byte) string {
	h := hex.EncodeToString(raw[:uuidSize])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func parseUUID(text string) ([uuidSize]byte, error) {
	var out [uuidSize]byte
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != uuidSize || formatUUID(raw) != text {
		return out, fmt.Errorf("%q is not an id: it must be a UUID in lower case", text)
	}
	copy(out[:], raw)
	return out, nil
}
