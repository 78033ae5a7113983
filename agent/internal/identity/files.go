package identity

import (
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

// checkDir refuses a directory that others may put keys into.
func checkDir(path string) error { return advice(path).CheckDir(path) }

// writeFile writes a file of a draft, which counts for nothing yet, and its content to the disk.
func writeFile(path string, content []byte) error { return durable.Write(path, content, fileMode) }
