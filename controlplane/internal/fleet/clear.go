package fleet

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// refuseClear refuses options that no database can keep, and passwords in options, which are stored and shown in clear.
// It never repeats a value.
func refuseClear(options map[string]any, spec flowdef.ConnectorSpec) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if strings.Contains(name, "\x00") || holds(options[name], hasNUL) {
			return fail(Invalid, "option %q holds a NUL character; remove it", name)
		}
		if !holds(options[name], hasPassword) {
			continue
		}
		if own := secretOption(spec); own != "" {
			return fail(Invalid, "option %q holds a password, and options are stored and shown in clear: leave it out there and give it as the secret option %q", name, own)
		}
		return fail(Invalid, "option %q holds a password, and options are stored and shown in clear: leave it out; a connection of kind %q has no secret option", name, spec.Kind)
	}
	return nil
}

// secretOption names the secret option that takes a password; empty when the kind has none.
func secretOption(spec flowdef.ConnectorSpec) string {
	var names []string
	for _, o := range spec.Options {
		if o.Type == flowdef.OptionSecret {
			names = append(names, o.Name)
		}
	}
	switch {
	case len(names) == 0:
		return ""
	case slices.Contains(names, "password"):
		return "password"
	default:
		return names[0]
	}
}

// holds looks at every text in a value.
func holds(v any, test func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return test(v)
	case []any:
		return slices.ContainsFunc(v, func(x any) bool { return holds(x, test) })
	case map[string]any:
		for name, x := range v {
			if test(name) || holds(x, test) {
				return true
			}
		}
	}
	return false
}

func hasNUL(text string) bool { return strings.Contains(text, "\x00") }

// member is name=value as in the query of a URL or a list of connection parameters.
var member = regexp.MustCompile(`([^?&;\s=]+)\s*=\s*[^&;\s]`)

// hasPassword says whether a text holds a password: in the user part of a URL, in user:password@host, or as a member of
// a query or of a list of parameters, like password=….
func hasPassword(text string) bool {
	for _, m := range member.FindAllStringSubmatch(text, -1) {
		name, err := url.QueryUnescape(m[1])
		if err != nil {
			name = m[1]
		}
		switch strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(name)) {
		case "password", "passwd", "passphrase", "pass", "pwd", "secret", "token", "sslpassword", "accesstoken", "authtoken",
			"apikey", "clientsecret", "secretkey", "credential", "credentials":
			return true
		}
	}
	if _, rest, isURL := strings.Cut(text, "://"); isURL {
		return userHasPassword(rest)
	}
	return !isPath(text) && userHasPassword(strings.TrimPrefix(text, "//"))
}

// userHasPassword looks at user:password@host and what may follow. net/url is of no use here: it refuses the passwords
// that were not escaped, and those must not get through.
func userHasPassword(rest string) bool {
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		_, password, _ := strings.Cut(authority[:i], ":")
		return password != ""
	}
	// A password may hold the very character that ends the authority. Then what stands behind the colon is no port.
	_, port, isPort := strings.Cut(authority, ":")
	return isPort && strings.Contains(rest[len(authority):], "@") && strings.Trim(port, "0123456789") != "" && !strings.HasPrefix(authority, "[")
}

// isPath says whether a text is the path of a file, which may hold any character.
func isPath(text string) bool {
	drive := len(text) > 2 && text[1] == ':' && (text[2] == '\\' || text[2] == '/')
	return drive || strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") || strings.HasPrefix(text, ".") || strings.HasPrefix(text, `\\`)
}
