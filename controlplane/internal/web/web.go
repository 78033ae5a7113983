// Package web is the dashboard: its TypeScript sources in ui, and the built files, which it embeds and serves.
//
// It knows nothing of the API beyond the files' own calls to /api/v1, reads no disk and keeps no state. A handler is
// safe for concurrent use. The build (npm ci and npm run build in ui) writes dist; a program that was built before it
// says so instead of showing an empty page.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed all:dist
var built embed.FS

const (
	indexFile = "index.html"
	// assetsFolder holds the files whose names carry a hash of their content.
	assetsFolder = "assets/"
	// contentPolicy lets the dashboard run its own files and call its own origin, and nothing else. Nothing is inline:
	// the sign-in key that a person types must not be readable by anything that finds its way into a page.
	contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	// notBuilt is what a person sees when the program was built without the dashboard.
	notBuilt = "The dashboard was not built: run make build, and start the control plane again.\n" +
		"The API is not touched by this: it answers under /api/v1.\n"
)

// Handler serves the embedded dashboard: its files, and the page for every path of the dashboard's own routes. Mount it
// at / beside the API; it answers 404 under /api/ and for files that do not exist. What it serves is read here, once.
func Handler() http.Handler {
	dist, err := fs.Sub(built, "dist")
	if err != nil {
		// fs.Sub fails only for a malformed path, and this one is a constant.
		return http.NotFoundHandler()
	}
	h, err := newHandler(dist)
	if err != nil {
		// What is embedded can be read.
		return http.NotFoundHandler()
	}
	return h
}

// file is one file of the build.
type file struct {
	content   []byte
	tag, kind string
	// packed is the gzipped twin; nil when there is none.
	packed *file
}

// handler serves a built dashboard. Its files are read and hashed once, so that an answer costs no copy of them: who asks
// for many and reads none would hold as many copies.
type handler struct{ files map[string]*file }

func newHandler(dist fs.FS) (*handler, error) {
	h := &handler{files: map[string]*file{}}
	err := fs.WalkDir(dist, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(dist, name)
		if err != nil {
			return fmt.Errorf("read the dashboard: %w", err)
		}
		sum := sha256.Sum256(content)
		h.files[name] = &file{content: content, kind: contentType(name), tag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // the walk's own function has said what it is
	}
	for name, one := range h.files {
		one.packed = h.files[name+".gz"]
	}
	return h, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The dashboard is read with GET.", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	switch {
	case name == "" || name == indexFile:
		h.serveIndex(w, r)
	case name == "api" || strings.HasPrefix(name, "api/"):
		http.NotFound(w, r)
	case isFile(name):
		h.serveFile(w, r, name)
	default:
		h.serveIndex(w, r)
	}
}

// isFile tells the build's files from the dashboard's routes, which may end in a name with a dot: /agents/press.local.
func isFile(name string) bool {
	return strings.HasPrefix(name, assetsFolder) || (!strings.Contains(name, "/") && path.Ext(name) != "")
}

// serveIndex serves the page, which a browser asks for again each time so that it finds the newest assets.
func (h *handler) serveIndex(w http.ResponseWriter, r *http.Request) {
	page := h.files[indexFile]
	if page == nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, notBuilt, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page.send(w, r)
}

// serveFile serves one file of the build, the gzipped one beside it where there is one and the browser takes it.
func (h *handler) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	one := h.files[name]
	if one == nil || hidden(name) {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	if strings.HasPrefix(name, assetsFolder) {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		header.Set("Cache-Control", "no-cache")
	}
	header.Set("Content-Type", one.kind)
	if one.packed != nil {
		header.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header) {
			header.Set("Content-Encoding", "gzip")
			one = one.packed
		}
	}
	one.send(w, r)
}

// send writes the content, or 304 where the browser has it.
func (f *file) send(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", f.tag)
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(f.content)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	// A browser that went away is no fault of ours, and there is nobody left to tell.
	_, _ = w.Write(f.content)
}

func setSecurityHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

// hidden tells files that are in the build but are not the dashboard's: .gitkeep, and the gzipped twins.
func hidden(name string) bool {
	return strings.HasPrefix(path.Base(name), ".") || strings.HasSuffix(name, ".gz")
}

// contentType knows the types of the build's own files, because the machine's tables may lack or misname them.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".png":
		return "image/png"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// acceptsGzip reads Accept-Encoding, in which q=0 refuses.
func acceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !found || (err == nil && weight > 0)
	}
	return false
}
