package seal_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/seal"
)

// rfc8032Seed and rfc8032Public are test 1 of RFC 8032, section 7.1.
const (
	rfc8032Seed   = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	rfc8032Public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
	// rfc8032Fingerprint is: printf %s PUBLIC | xxd -r -p | sha256sum
	rfc8032Fingerprint = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"

	// sealedV1 is what SealTo wrote on 2026-11-21; see TestSealedSecretStaysReadable.
	sealedV1 = "1100798a93040de20617d7273b5027bbbf06755a77b5d0cb3f773b308637cb710098037902ee21c35ecfed07dda6e82d43d072d5a50246d3bd2a192ef1"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	out, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fixedKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(unhex(t, rfc8032Seed))
}

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestFingerprintKnownAnswer(t *testing.T) {
	t.Parallel()
	if got := seal.Fingerprint(unhex(t, rfc8032Public)); got != rfc8032Fingerprint {
		t.Errorf("fingerprint is %s, want %s", got, rfc8032Fingerprint)
	}
}

// TestPAEKnownAnswers holds the encoding against the examples of the DSSE specification (protocol.md).
func TestPAEKnownAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ payloadType, payload, want string }{
		{"http://example.com/HelloWorld", "hello world", "DSSEv1 29 http://example.com/HelloWorld 11 hello world"},
		{"", "", "DSSEv1 0  0 "},
		{"é", "ß\n", "DSSEv1 2 é 3 ß\n"},
	} {
		if got := string(seal.PAE(c.payloadType, []byte(c.payload))); got != c.want {
			t.Errorf("PAE(%q, %q) = %q, want %q", c.payloadType, c.payload, got, c.want)
		}
	}
}

func TestSignKnownAnswer(t *testing.T) {
	t.Parallel()
	envelope, err := seal.Sign(fixedKey(t), "http://example.com/HelloWorld", []byte("hello world"))
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Payload, PayloadType string
		Signatures           []struct{ KeyID, Sig string }
	}
	if err = json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	if e.Payload != "aGVsbG8gd29ybGQ=" || e.PayloadType != "http://example.com/HelloWorld" || len(e.Signatures) != 1 {
		t.Fatalf("the envelope is %s", envelope)
	}
	if e.Signatures[0].KeyID != rfc8032Fingerprint {
		t.Errorf("key id %s, want the fingerprint", e.Signatures[0].KeyID)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(unhex(t, rfc8032Public), []byte("DSSEv1 29 http://example.com/HelloWorld 11 hello world"), sig) {
		t.Error("the signature is not over the pre-authentication encoding")
	}
	if !strings.Contains(string(envelope), `"payloadType"`) || !strings.Contains(string(envelope), `"keyid"`) {
		t.Errorf("the envelope's members are not named as DSSE names them: %s", envelope)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	public, private := newKey(t)
	other, _ := newKey(t)
	envelope, err := seal.Sign(private, seal.BundlePayload, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := seal.Open(envelope, []ed25519.PublicKey{other, public}, seal.BundlePayload)
	if err != nil || string(payload) != "payload" {
		t.Fatalf("Open = %q, %v", payload, err)
	}
	if _, err := seal.Open(envelope, []ed25519.PublicKey{other}, seal.BundlePayload); !errors.Is(err, seal.ErrUntrusted) {
		t.Errorf("another key opened it: %v", err)
	}
	if _, err := seal.Open(envelope, nil, seal.BundlePayload); !errors.Is(err, seal.ErrUntrusted) {
		t.Errorf("no key opened it: %v", err)
	}
	if _, err := seal.Open(envelope, []ed25519.PublicKey{public}, "text/plain"); err == nil {
		t.Error("another payload type was accepted")
	}
	altered := bytes.Replace(envelope, []byte(base64.StdEncoding.EncodeToString([]byte("payload"))),
		[]byte(base64.StdEncoding.EncodeToString([]byte("Payload"))), 1)
	if _, err := seal.Open(altered, []ed25519.PublicKey{public}, seal.BundlePayload); !errors.Is(err, seal.ErrUntrusted) {
		t.Errorf("an altered payload opened: %v", err)
	}
	retyped := bytes.Replace(envelope, []byte(seal.BundlePayload), []byte("text/plain"), 1)
	if _, err := seal.Open(retyped, []ed25519.PublicKey{public}, "text/plain"); !errors.Is(err, seal.ErrUntrusted) {
		t.Errorf("an altered type opened: %v", err)
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(string(envelope[bytes.Index(envelope, []byte(`"sig"`)):]))
	mixed := string(envelope[:bytes.Index(envelope, []byte(`"sig"`))]) + urlSafe
	if _, err := seal.Open([]byte(mixed), []ed25519.PublicKey{public}, seal.BundlePayload); err != nil {
		t.Errorf("the URL-safe alphabet was refused: %v", err)
	}
	if _, err := seal.Sign(private[:10], "x", nil); err == nil {
		t.Error("a short key signed")
	}
}

func FuzzOpen(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		f.Fatal("no public key")
	}
	good, err := seal.Sign(key, "t", []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"payload":"","payloadType":"t","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		payload, err := seal.Open(data, []ed25519.PublicKey{public}, "t")
		if err == nil && string(payload) != "payload" {
			t.Fatalf("a payload that was never signed opened: %q", payload)
		}
	})
}

func TestSealedSecret(t *testing.T) {
	t.Parallel()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	context := seal.SecretContext{Tenant: "t", Agent: "a", Connection: "c", Field: "password"}
	sealed, err := seal.SealTo(key.PublicKey().Bytes(), context, []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.OpenSealed(key, context, sealed)
	if err != nil || string(got) != "hunter2" {
		t.Fatalf("OpenSealed = %q, %v", got, err)
	}
	again, err := seal.SealTo(key.PublicKey().Bytes(), context, []byte("hunter2"))
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealing twice gave the same bytes, or %v", err)
	}
	for _, wrong := range []seal.SecretContext{
		{Tenant: "x", Agent: "a", Connection: "c", Field: "password"},
		{Tenant: "t", Agent: "x", Connection: "c", Field: "password"},
		{Tenant: "t", Agent: "a", Connection: "x", Field: "password"},
		{Tenant: "t", Agent: "a", Connection: "c", Field: "user"},
		{Tenant: "ta", Agent: "a", Connection: "c", Field: "password"},
		{Tenant: "t", Agent: "ac", Connection: "c", Field: "password"},
		{Tenant: "t", Agent: "a", Connection: "c", Field: ""},
	} {
		if _, err = seal.OpenSealed(key, wrong, sealed); err == nil {
			t.Errorf("opened under %+v", wrong)
		}
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err = seal.OpenSealed(key, context, altered); err == nil {
			t.Fatalf("opened with byte %d altered", i)
		}
	}
	other, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenSealed(other, context, sealed); err == nil {
		t.Error("another agent's key opened it")
	}
	if _, err := seal.OpenSealed(nil, context, sealed); err == nil {
		t.Error("no key opened it")
	}
	for _, public := range [][]byte{nil, make([]byte, 31), make([]byte, 32)} {
		if _, err := seal.SealTo(public, context, []byte("x")); err == nil {
			t.Errorf("sealed to the key %x", public)
		}
	}
}

// TestSealedSecretStaysReadable opens a ciphertext of version 1, so that no change makes stored credentials unreadable.
func TestSealedSecretStaysReadable(t *testing.T) {
	t.Parallel()
	key, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{0x42}, 32))
	if err != nil {
		t.Fatal(err)
	}
	context := seal.SecretContext{Tenant: "tenant", Agent: "agent", Connection: "connection", Field: "password"}
	got, err := seal.OpenSealed(key, context, unhex(t, sealedV1))
	if err != nil || string(got) != "correct horse" {
		t.Errorf("OpenSealed = %q, %v", got, err)
	}
}

func FuzzOpenSealed(f *testing.F) {
	key, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{0x42}, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{9}, 48))
	f.Fuzz(func(t *testing.T, data []byte) {
		context := seal.SecretContext{Tenant: "t", Agent: "a", Connection: "c", Field: "f"}
		if out, err := seal.OpenSealed(key, context, data); err == nil {
			t.Fatalf("random bytes opened as %q", out)
		}
	})
}

func newToken(tb testing.TB) seal.Token {
	tb.Helper()
	token, err := seal.NewToken("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "0190a1b2-c3d4-7e5f-8a9b-ffffffffffff", strings.Repeat("ab", 32))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	token := newToken(t)
	text, err := seal.EncodeToken(token)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) != 139 || !strings.HasPrefix(text, "oft_") {
		t.Errorf("the token has %d characters: %s", len(text), text)
	}
	for _, copied := range []string{text, " " + text + "\r\n"} {
		if got, parseErr := seal.ParseToken(copied); parseErr != nil || got != token {
			t.Errorf("ParseToken = %#v, %v", got, parseErr)
		}
	}
	raw := strings.Trim(fmt.Sprint(token.Secret), "[]")
	for _, shown := range []string{fmt.Sprint(token), fmt.Sprintf("%+v %#v %s", token, token, token)} {
		if strings.Contains(shown, token.SecretText()) || strings.Contains(shown, raw) {
			t.Errorf("printing shows the secret: %s", shown)
		}
	}
	out, err := json.Marshal(struct{ Shown any }{token})
	if err != nil || !strings.Contains(string(out), token.String()) {
		t.Errorf("JSON is %s, %v", out, err)
	}
}

func TestTokenMiscopied(t *testing.T) {
	t.Parallel()
	text, err := seal.EncodeToken(newToken(t))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimPrefix(text, "oft_")
	for name, c := range map[string]struct{ text, says string }{
		"empty":         {"", "not an enrolment token"},
		"an API key":    {"ofk_" + body, "not an enrolment token"},
		"cut off":       {text[:len(text)-1], "cut off"},
		"only a prefix": {"oft_", "cut off"},
		"twice":         {text + body, "copy only the token"},
		"a line break":  {text[:40] + "\n" + text[40:], "line break"},
		"a bad letter":  {text[:40] + "*" + text[41:], "character that no token has"},
		"swapped":       {"oft_" + body[:60] + swap(body[60:62]) + body[62:], "miscopied"},
	} {
		_, err := seal.ParseToken(c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
		if err != nil && len(c.text) > 20 && strings.Contains(err.Error(), c.text[10:20]) {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
	// Every single changed character is noticed.
	for i := len("oft_"); i < len(text); i++ {
		other := byte('A')
		if text[i] == other {
			other = 'B'
		}
		if _, err := seal.ParseToken(text[:i] + string(other) + text[i+1:]); err == nil {
			t.Fatalf("character %d changed unnoticed", i)
		}
	}
}

func swap(two string) string {
	if two[0] == two[1] {
		return "AB"
	}
	return string([]byte{two[1], two[0]})
}

func TestEncodeTokenRefuses(t *testing.T) {
	t.Parallel()
	good := newToken(t)
	for _, change := range []func(*seal.Token){
		func(k *seal.Token) { k.ID = "x" },
		func(k *seal.Token) { k.Tenant = "" },
		func(k *seal.Token) { k.Tenant = strings.ToUpper(k.Tenant) },
		func(k *seal.Token) { k.Fingerprint = "abcd" },
	} {
		bad := good
		change(&bad)
		if text, err := seal.EncodeToken(bad); err == nil {
			t.Errorf("%#v was written as %s", bad, text)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text, err := seal.EncodeToken(newToken(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("oft_" + strings.Repeat("A", 135))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := seal.ParseToken(text)
		if err != nil {
			return
		}
		again, err := seal.EncodeToken(token)
		if err != nil || again != strings.TrimSpace(text) {
			t.Fatalf("%q reads as %#v, which is written %q, %v", text, token, again, err)
		}
	})
}
