package fleet

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestHasPassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"mqtt://plant:PW@broker:1883":                  true,
		"MQTTS://plant:P%20W@broker":                   true,
		"mqtt://:PW@broker":                            true,
		"postgres://u:PW@db:5432/plant?sslmode=prefer": true,
		"postgres://u:PW@db1:5432,db2:5432/plant":      true,
		"postgres://u:P/W@db/plant":                    true,
		"postgres://u:P?W@db/plant":                    true,
		"postgres://u:100%@db/plant":                   true,
		"postgres://u:P@W@db/plant":                    true,
		"postgres://u@db/plant?password=PW":            true,
		"postgres://u@db/plant?a=b&PassWord=PW":        true,
		"postgres://u@db/plant?a=b;pwd=PW":             true,
		"postgres://u@db/plant?pass%77ord=PW":          true,
		"postgres://u@db/plant?sslpassword=PW":         true,
		"https://host/x?access_token=PW":               true,
		"https://host/x?api-key=PW":                    true,
		"host=db user=u password=PW":                   true,
		"host=db password = 'PW'":                      true,
		"plant:PW@broker:1883":                         true,
		"//plant:PW@broker":                            true,
		"plant:PW@[::1]:1883":                          true,

		"":                                  false,
		"mqtt://broker:1883":                false,
		"mqtt://plant@broker:1883":          false,
		"mqtt://plant:@broker":              false,
		"mqtt://[2001:db8::1]:1883/a@b":     false,
		"https://host:8080/path@v2":         false,
		"postgres://u@db/plant?sslmode=off": false,
		"postgres://u@db/plant?password=":   false,
		"postgres://u@db/password=":         false,
		"broker:1883":                       false,
		"plant@broker:1883":                 false,
		"[::1]:1883":                        false,
		"/data/a:b@c":                       false,
		`C:\data\a@b`:                       false,
		"./a:b@c":                           false,
		"tokens=12":                         false,
		"disable":                           false,
	} {
		if got := hasPassword(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestRefuseClear(t *testing.T) {
	t.Parallel()
	none := flowdef.ConnectorSpec{Kind: "plc", Options: []flowdef.Option{{Name: "address", Type: flowdef.OptionString}}}
	key := flowdef.ConnectorSpec{Kind: "cloud", Options: []flowdef.Option{{Name: "key", Type: flowdef.OptionSecret}}}
	both := flowdef.ConnectorSpec{Kind: "mqtt", Options: append(key.Options, flowdef.Option{Name: "password", Type: flowdef.OptionSecret})}
	for name, c := range map[string]struct {
		spec  flowdef.ConnectorSpec
		value any
		want  string
	}{
		"plain":    {both, "broker:1883", ""},
		"number":   {both, int64(3), ""},
		"password": {both, "mqtt://u:hunter2@h", `the secret option "password"`},
		"other":    {key, "mqtt://u:hunter2@h", `the secret option "key"`},
		"no such":  {none, "u:hunter2@h", `kind "plc" has no secret option`},
		"list":     {both, []any{"h:1", map[string]any{"to": "u:hunter2@h"}}, `the secret option "password"`},
		"NUL":      {both, "hunter2\x00", "NUL"},
		"NUL name": {both, map[string]any{"hunter2\x00": true}, "NUL"},
	} {
		err := refuseClear(map[string]any{"address": c.value}, c.spec)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", name, err)
		case c.want == "":
		case err == nil || CodeOf(err) != Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"address"`):
			t.Errorf("%s: got %v, want something with %q", name, err, c.want)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error repeats the value: %v", name, err)
		}
	}
}
