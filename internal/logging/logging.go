// Package logging makes the log that both programs write.
//
// It keeps no state; the loggers that it makes are safe for concurrent use.
package logging

import (
	"io"
	"log/slog"
	"strings"
)

// New makes a log of that level, in the format "json" or else as text.
func New(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if strings.EqualFold(format, "json") {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
