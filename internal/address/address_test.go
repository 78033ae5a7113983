package address_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/internal/address"
)

const secretPart = "hunter2"

func TestControlPlane(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"https://cp.example", "https://cp.example:8443/", "http://127.0.0.1:8480", "https://[::1]:8443", "https://cp.example/outfeed"} {
		if u, err := address.ControlPlane(good); err != nil || u.Host == "" {
			t.Errorf("%s: %v, %v", good, u, err)
		}
	}
	for text, says := range map[string]string{
		"https://me:hunter2@cp.example":    "holds a user or a password",
		"https://hunter2@cp.example":       "holds a user or a password",
		"https://me:hunter2#1@cp.example":  "holds a user or a password",
		"https://me:hunter2%@cp.example":   "holds a user or a password",
		"me:hunter2@cp.example":            "holds a user or a password",
		"https://cp.example/?key=@hunter2": "holds a user or a password",
		"cp.example":                       "cp.example",
		"ftp://cp.example":                 "https://host",
		"https://":                         "https://host",
		"":                                 "https://host",
	} {
		_, err := address.ControlPlane(text)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secretPart) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	for text, password := range map[string]string{
		"http://proxy:3128": "", "https://proxy": "", "http://me:hunter2@proxy:3128": "hunter2", "http://me:a%23b%40c%2Fd@proxy": "a#b@c/d",
		// What Go's parser understands stays good.
		"http://me:a@b:c!d@proxy:3128": "a@b:c!d",
	} {
		u, err := address.Proxy(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _ := u.User.Password(); got != password {
			t.Errorf("%s has the password %q", text, got)
		}
	}
	for text, says := range map[string]string{
		"http://me:hunter2#x@proxy:3128":   "the character #, which must be written as %23",
		"http://me:1#hunter2@proxy:3128":   "the character #, which must be written as %23",
		"http://me:hunter2/x@proxy:3128":   "the character /, which must be written as %2F",
		"http://me:hunter2?x@proxy:3128":   "the character ?, which must be written as %3F",
		"http://me:hunter2 x@proxy:3128":   "the character space, which must be written as %20",
		"http://me:hunter2%x@proxy:3128":   "which must be written as %25",
		"http://me:hunter2%@proxy:3128":    "which must be written as %25",
		"http://me:hunter2[x@proxy:3128":   "the character [, which must be written as %5B",
		"http://me:hunter2\\x@proxy:3128":  "which must be written as %5C",
		"http://me:hunter2ä@proxy:3128":    "the character ä, which must be written as %C3%A4",
		"http://me:hunter2\x01@proxy:3128": "which must be written as %01",
		"http://me:hunter2\"@proxy:3128":   "which must be written as %22",
		"socks5://me:hunter2@socks:1080":   "socks:1080 is not an HTTP proxy",
		"me:hunter2@proxy:3128":            "has no http://",
		"http://me:hunter2@":               "is not valid",
		"http://me:hunter2@:3128":          "is not valid",
		"http://me:hunter2@proxy:x":        "is not valid",
		"":                                 "has no http://",
	} {
		_, err := address.Proxy(text)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secretPart) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestProxyFromEnvironment has one environment, since Go reads it once.
func TestProxyFromEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://me:hunter2#x@proxy:3128")
	t.Setenv("NO_PROXY", "near.example")
	ask := func(target string) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		u, err := address.ProxyFromEnvironment(r)
		if u == nil {
			return "", err
		}
		return u.Host, err
	}
	if via, err := ask("https://near.example"); via != "" || err != nil {
		t.Errorf("NO_PROXY: %q, %v", via, err)
	}
	if _, err := ask("https://far.example"); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY: ") || !strings.Contains(err.Error(), "%23") || strings.Contains(err.Error(), secretPart) {
		t.Errorf("a # in the password: %v", err)
	}
	t.Setenv("HTTPS_PROXY", "proxy.example:3128")
	if via, err := ask("https://far.example"); via != "proxy.example:3128" || err != nil {
		t.Errorf("without a scheme: %q, %v", via, err)
	}
}

// FuzzProxy holds that no password comes back in an error.
func FuzzProxy(f *testing.F) {
	for _, seed := range []string{"#", "%", "@", "/", "%zz", " ", "[", "://", "ä", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, between string) {
		for _, text := range []string{"http://me:QZJX" + between + "VKWY@proxy:1", "http://QZJX" + between + "VKWY", "QZJX" + between + "VKWY@x"} {
			if !strings.Contains(text, "@") {
				continue
			}
			_, err := address.Proxy(text)
			if err == nil {
				_, err = address.ControlPlane(text)
			}
			if err != nil && strings.Contains(err.Error(), "QZJX") {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
