package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/outfeed/outfeed/internal/durable"
	"github.com/outfeed/outfeed/internal/keyfile"
)

// fileMode is that of every file of the identity.
const fileMode = 0o600

// advice is for a person who reads that a file of the identity is refused.
func advice(dir string) keyfile.Advice {
	return keyfile.Advice{
		What: "the agent's identity", Distrust: "revoke this agent and enrol again",
		Lost: "restore it from a backup, or remove " + dir + " and enrol again",
	}
}

// readPrivate reads a file that nobody else may read, and refuses it when somebody could.
func readPrivate(path string) ([]byte, error) { return advice(filepath.Dir(path)).Read(path) }

// missing says what it means that a file of the identity is not there, and what to do. Other errors stay as they are.
func missing(err error, dataDir, name, held string) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Join(dataDir, dirName)
	return fmt.Errorf("%s is not there: %w. It held %s, and no copy of it is anywhere else, so somebody or something has removed it. "+
		"Put it back from a backup, or make this machine an agent anew: get a token from the dashboard or with `outfeed agent token`, then run "+
		"`rm -r %s` and `outfeed-agent enroll --url URL --token-file FILE --data-dir %s`, and revoke the old agent with `outfeed agent revoke NAME`. "+
		"What is staged here and was not sent is kept aside in %s then, and never sent",
		filepath.Join(dir, name), ErrLost, held, keyfile.Word(dir), keyfile.Word(dataDir), filepath.Join(dataDir, "stage.of-…"))
}

// checkDir refuses a directory that others may put keys into.
func checkDir(path string) error { return advice(path).CheckDir(path) }

// writeFile writes a file of a draft, which counts for nothing yet, and its content to the disk.
func writeFile(path string, content []byte) error { return durable.Write(path, content, fileMode) }
