package seal

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// BundlePayload is the DSSE payload type of a marshalled wire.Bundle.
const BundlePayload = "application/vnd.outfeed.bundle.v1+protobuf"

// maxSignatures bounds how many signatures of one envelope are looked at.
const maxSignatures = 16

// ErrUntrusted is when no trusted key has signed an envelope. It is not said which check failed: to an attacker there
// is no difference between an altered payload and an unknown key.
var ErrUntrusted = errors.New("no trusted key has signed this: it was altered on the way, or signed with a key that is not trusted here")

// envelope is the JSON of a DSSE envelope, https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
type envelope struct {
	Payload     string      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding, the bytes that are signed:
// "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body, lengths in decimal ASCII.
func PAE(payloadType string, payload []byte) []byte {
	out := make([]byte, 0, len("DSSEv1")+len(payloadType)+len(payload)+32)
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(payloadType)), 10)
	out = append(out, ' ')
	out = append(out, payloadType...)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(len(payload)), 10)
	out = append(out, ' ')
	return append(out, payload...)
}

// Sign puts the payload into a DSSE envelope, as JSON, signed with the key. The key id is the key's fingerprint.
func Sign(key ed25519.PrivateKey, payloadType string, payload []byte) ([]byte, error) {
	public, err := publicOf(key)
	if err != nil {
		return nil, err
	}
	sig := ed25519.Sign(key, PAE(payloadType, payload))
	out, err := json.Marshal(envelope{
		Payload:     base64.StdEncoding.EncodeToString(payload),
		PayloadType: payloadType,
		Signatures:  []signature{{KeyID: Fingerprint(public), Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
	if err != nil {
		return nil, fmt.Errorf("write the signed envelope: %w", err)
	}
	return out, nil
}

// Open gives the payload of an envelope that at least one of the trusted keys has signed and that has the wanted
// payload type. The error is ErrUntrusted when the signature is what is wrong.
func Open(envelopeJSON []byte, trusted []ed25519.PublicKey, payloadType string) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(envelopeJSON, &e); err != nil {
		return nil, fmt.Errorf("this is not a DSSE envelope: %w", err)
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("the payload of the envelope is not base64: %w", err)
	}
	if len(e.Signatures) > maxSignatures {
		return nil, fmt.Errorf("the envelope has %d signatures; at most %d are accepted", len(e.Signatures), maxSignatures)
	}
	signed := PAE(e.PayloadType, payload)
	for _, s := range e.Signatures {
		sig, err := decodeBase64(s.Sig)
		if err != nil || len(sig) != ed25519.SignatureSize {
			continue
		}
		// The key id is a hint that anyone can write, so every trusted key is tried.
		if !anyVerifies(trusted, signed, sig) {
			continue
		}
		if e.PayloadType != payloadType {
			return nil, fmt.Errorf("the envelope holds a %q, not a %q", e.PayloadType, payloadType)
		}
		return payload, nil
	}
	return nil, ErrUntrusted
}

func anyVerifies(trusted []ed25519.PublicKey, message, sig []byte) bool {
	for _, key := range trusted {
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, sig) {
			return true
		}
	}
	return false
}

// decodeBase64 takes the standard and the URL-safe alphabet, as the specification demands of a reader.
func decodeBase64(text string) ([]byte, error) {
	if out, err := base64.StdEncoding.Strict().DecodeString(text); err == nil {
		return out, nil
	}
	out, err := base64.URLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return out, nil
}

func publicOf(key ed25519.PrivateKey) (ed25519.PublicKey, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the Ed25519 private key has %d bytes instead of %d", len(key), ed25519.PrivateKeySize)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the Ed25519 private key has no public key")
	}
	return public, nil
}
