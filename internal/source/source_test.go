package source_test

import (
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/outfeed/outfeed/internal/source"
)

func TestSite(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "192.0.2.7": "192.0.2.7", "[2001:db8:1:2:3::4]:443": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::",
		"::ffff:192.0.2.7": "192.0.2.7", "[fe80::1%eth0]:1": "fe80::", "@": "invalid IP", "": "invalid IP",
	} {
		if got := source.Site(address); got.String() != want {
			t.Errorf("%q: %v, want %s", address, got, want)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	proxies, err := source.ParseProxies("127.0.0.1, 10.0.0.0/8\tfd00::/8")
	if err != nil || len(proxies) != 3 {
		t.Fatalf("%v, %v", proxies, err)
	}
	for _, c := range []struct {
		peer string
		said []string
		want string
	}{
		{peer: "192.0.2.1:99", said: []string{"203.0.113.9"}, want: "192.0.2.1:99"},
		{peer: "127.0.0.1:99", want: "127.0.0.1:99"},
		{peer: "127.0.0.1:99", said: []string{"203.0.113.9"}, want: "203.0.113.9"},
		{peer: "[::ffff:127.0.0.1]:99", said: []string{"203.0.113.9"}, want: "203.0.113.9"},
		{peer: "127.0.0.1:99", said: []string{"6.6.6.6, 203.0.113.9, 10.1.1.1"}, want: "203.0.113.9"},
		{peer: "127.0.0.1:99", said: []string{"6.6.6.6", "203.0.113.9:4711, 10.1.1.1"}, want: "203.0.113.9"},
		{peer: "127.0.0.1:99", said: []string{"unknown, 10.1.1.1"}, want: "10.1.1.1"},
		{peer: "127.0.0.1:99", said: []string{"[2001:db8::1]:80"}, want: "2001:db8::1"},
		{peer: "[fd00::2]:99", said: []string{"2001:db8::1"}, want: "2001:db8::1"},
		{peer: "@", said: []string{"203.0.113.9"}, want: "@"},
	} {
		if got := proxies.Client(c.peer, http.Header{"X-Forwarded-For": c.said}); got != c.want {
			t.Errorf("%s with %q is %s, want %s", c.peer, c.said, got, c.want)
		}
	}
	if _, err = source.ParseProxies("nginx"); err == nil {
		t.Error("a name is no address")
	}
}

// TestCrowd has a greedy source and a modest one: the greedy one loses its own oldest.
func TestCrowd(t *testing.T) {
	t.Parallel()
	var c source.Crowd[string, int]
	if c.Next() != nil || c.First() != nil {
		t.Error("an empty crowd has nobody to go")
	}
	modest := c.Add("modest", 0)
	for n := range 5 {
		c.Add("greedy", n+1)
	}
	var gone []int
	for c.Len() > 2 {
		m := c.Next()
		gone = append(gone, m.Value)
		c.Remove(m)
		c.Remove(m)
	}
	if !slices.Equal(gone, []int{1, 2, 3, 4}) || c.Of("modest") != 1 || c.Sources() != 2 {
		t.Errorf("gone are %v", gone)
	}
	// Of equals the oldest goes.
	if m := c.Next(); m != modest || m.From() != "modest" {
		t.Errorf("the next is %+v", m)
	}
	if m := c.First(); m.Value != 5 {
		t.Errorf("the first is %+v", m)
	}
	again := c.Add("greedy", 6)
	if m := c.First(); m != modest {
		t.Errorf("the first is %+v", m)
	}
	// Who is modest is not greedy, even with more than others.
	c.Modest = 2
	if c.Next() != modest || c.First() != again {
		t.Errorf("the next is %+v, the first %+v", c.Next(), c.First())
	}
	c.Remove(again)
	for m := range c.All() {
		if m.Value != 0 && m.Value != 5 {
			t.Errorf("%+v is among all", m)
		}
	}
	c.Remove(modest)
	c.Remove(nil)
	if c.Len() != 1 || c.Of("modest") != 0 {
		t.Errorf("%d are left", c.Len())
	}
}

// v2 is a header of version 2 as the specification has it.
func v2(command, family byte, body ...byte) []byte {
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family, byte(len(body)>>8), byte(len(body))) //nolint:gosec // they are short
	return append(head, body...)
}

func TestReadProxy(t *testing.T) {
	t.Parallel()
	four := []byte{192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb}
	six := slices.Concat(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice(), []byte{0, 80, 1, 0xbb, 4, 0, 1, 9})
	for name, c := range map[string]struct {
		header []byte
		want   string
		bad    bool
	}{
		"version 1, IPv4":    {header: []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), want: "192.0.2.1:56324"},
		"version 1, IPv6":    {header: []byte("PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n"), want: "[2001:db8::1]:80"},
		"version 1, unknown": {header: []byte("PROXY UNKNOWN\r\n")},
		"version 2, IPv4":    {header: v2(0x21, 0x11, four...), want: "192.0.2.1:56324"},
		"version 2, IPv6":    {header: v2(0x21, 0x21, six...), want: "[2001:db8::1]:80"},
		"version 2, local":   {header: v2(0x20, 0)},
		"version 2, socket":  {header: v2(0x21, 0x31, make([]byte, 216)...)},
		"no address":         {header: []byte("PROXY TCP4 here there 1 2\r\n"), bad: true},
		"no port":            {header: []byte("PROXY TCP4 192.0.2.1 198.51.100.2 99999 443\r\n"), bad: true},
		"no line":            {header: bytes.Repeat([]byte("PROXY "), 30), bad: true},
		"too short":          {header: v2(0x21, 0x11, 1, 2, 3), bad: true},
		"version 3":          {header: v2(0x31, 0x11, four...), bad: true},
	} {
		client, length, more, err := source.ReadProxy(append(slices.Clone(c.header), "GET /"...))
		if more || (err != nil) != c.bad || client != c.want || !c.bad && length != len(c.header) {
			t.Errorf("%s: %q, %d, %v, %v", name, client, length, more, err)
		}
		if c.bad {
			continue
		}
		for n := range c.header {
			if _, length, more, err = source.ReadProxy(c.header[:n]); !more || length != 0 || err != nil {
				t.Fatalf("%s, %d bytes of it: %d, %v, %v", name, n, length, more, err)
			}
		}
	}
	for _, other := range []string{"GET / HTTP/1.1\r\n", "POST /", "\x16\x03\x01\x02\x00\x01", "\r\n\r\nGET"} {
		if client, length, more, err := source.ReadProxy([]byte(other)); client != "" || length != 0 || more || err != nil {
			t.Errorf("%q: %q, %d, %v, %v", other, client, length, more, err)
		}
	}
}

func FuzzReadProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET / HTTP/1.1"))
	f.Add(v2(0x21, 0x11, 192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		client, length, more, err := source.ReadProxy(data)
		if length < 0 || length > len(data) || more && (length > 0 || err != nil || client != "") {
			t.Fatalf("%q, %d, %v, %v", client, length, more, err)
		}
		if _, invalid := netip.ParseAddrPort(client); client != "" && invalid != nil {
			t.Fatalf("%q is no address", client)
		}
		if len(data) > 4096 && more {
			t.Fatal("no end of it")
		}
	})
}
