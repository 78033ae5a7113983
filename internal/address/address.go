// Package address reads the addresses that people write: the control plane's, and an HTTP proxy's.
//
// Either may hold a password by intent or by mistake, so no error repeats what was written. It opens no connection. Its
// functions may be called from anywhere.
package address

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// form is what a proxy's address looks like.
const form = "it must read http://host:port or http://user:password@host:port"

// ControlPlane reads the address of a control plane: scheme and host, perhaps a port and a path.
func ControlPlane(text string) (*url.URL, error) {
	if strings.Contains(text, "@") {
		return nil, errors.New("the address of the control plane holds a user or a password (what is before the @); it must read https://host or https://host:port, without them; those of a proxy belong into the proxy's address, such as HTTPS_PROXY")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("%q is not the address of a control plane: it must read https://host or https://host:port", text)
	}
	return u, nil
}

// Proxy reads the address of an HTTP proxy, with user and password where it wants them.
func Proxy(text string) (*url.URL, error) {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errors.New("the proxy's address has no http:// at its beginning; " + form)
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		if c, code := unescaped(rest[:at]); code != "" {
			return nil, fmt.Errorf("the user or the password in the proxy's address has the character %s, which must be written as %s there; %s", c, code, form)
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the proxy's address is not valid; " + form + ", with special characters of the password percent-encoded (# as %23, @ as %40)")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the proxy %s is not an HTTP proxy; Outfeed goes through HTTP proxies with CONNECT", u.Host)
	}
	return u, nil
}

// unescaped is the first character of a user and password that a URL cannot hold as it is, and how to write it; empty when
// there is none.
func unescaped(userinfo string) (character, code string) {
	for i, c := range userinfo {
		switch {
		case c == '%':
			if !escape(userinfo[i:]) {
				return "% (without two hexadecimal digits behind it)", "%25"
			}
		case c == ' ':
			return "space", "%20"
		case strings.ContainsRune("/?#[]\"<>\\^`{|}", c) || c < ' ' || c > '~':
			return display(c), strings.ToUpper(url.PathEscape(string(c)))
		}
	}
	return "", ""
}

// escape says whether a text begins with a percent-encoded byte.
func escape(s string) bool {
	const digits = "0123456789abcdefABCDEF"
	return len(s) >= 3 && strings.IndexByte(digits, s[1]) >= 0 && strings.IndexByte(digits, s[2]) >= 0
}

// display is a character as people can read it.
func display(c rune) string {
	if c < ' ' || c == 0x7f {
		return fmt.Sprintf("%q", c)
	}
	return string(c)
}

// ProxyFromEnvironment is http.ProxyFromEnvironment, but for what it says of an address that is not valid: that one takes
// part of a password for the proxy's name.
func ProxyFromEnvironment(r *http.Request) (*url.URL, error) {
	via, err := http.ProxyFromEnvironment(r)
	if via == nil && err == nil {
		// NO_PROXY says so, or nothing is set.
		return nil, nil //nolint:nilnil // how a proxy function says: no proxy
	}
	name, value := variable(r.URL.Scheme)
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := Proxy(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return u, nil
}

// variable is the environment variable with the proxy for a scheme, and its value.
func variable(scheme string) (name, value string) {
	name = strings.ToUpper(scheme) + "_PROXY"
	if value = os.Getenv(name); value == "" {
		name = strings.ToLower(name)
		value = os.Getenv(name)
	}
	return name, value
}
