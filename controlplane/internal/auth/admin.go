package auth

import (
	"fmt"
	"os"
	"strings"

	"github.com/outfeed/outfeed/internal/secret"
)

// minAdminToken is the least length of the operator's token in characters: 128 bits as hex.
const minAdminToken = 32

// ReadAdminToken reads the operator's token from its file. White space around it does not count.
func ReadAdminToken(path string) (secret.String, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return secret.String{}, fmt.Errorf("read the operator's token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minAdminToken {
		return secret.String{}, fmt.Errorf(
			"the operator's token in %s has %d characters and needs at least %d; make one with: openssl rand -hex 32",
			path, len(token), minAdminToken)
	}
	return secret.New(token), nil
}
