package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/secret"
)

// Every way to print a value that holds a secret must show that it is one, and nothing of it.
func TestNothingPrintsIt(t *testing.T) {
	t.Parallel()
	held := struct{ Password secret.String }{secret.New("hush-hush")}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("held", "secret", held.Password, "struct", held)
	asJSON, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"%v": fmt.Sprintf("%v", held), "%+v": fmt.Sprintf("%+v", held), "%#v": fmt.Sprintf("%#v", held),
		"%s": fmt.Sprintf("%10s", held.Password), "%q": fmt.Sprintf("%q", held.Password), "%x": fmt.Sprintf("%x", held.Password),
		"slog": logged.String(), "json": string(asJSON), "yaml": string(asYAML),
	} {
		if strings.Contains(text, "hush") || strings.Contains(text, "68757368") {
			t.Errorf("%s shows the secret: %s", name, text)
		}
	}
	if held.Password.Reveal() != "hush-hush" {
		t.Error("Reveal does not give the secret")
	}
}

func TestEmptyAndUnmarshal(t *testing.T) {
	t.Parallel()
	var s secret.String
	if !s.Empty() || s.String() != "" {
		t.Errorf("the zero secret prints %q", s)
	}
	if err := yaml.Unmarshal([]byte("from a file"), &s); err != nil || s.Reveal() != "from a file" {
		t.Errorf("read %q, %v", s.Reveal(), err)
	}
}
