package client

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func decodeAll(text string) ([]Event, error) {
	d := newDecoder(strings.NewReader(text))
	var events []Event
	for {
		e, err := d.next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestDecoder(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []Event
	}{
		"one":             {"event: run\ndata: {\"id\":1}\n\n", []Event{{"run", []byte(`{"id":1}`)}}},
		"comments":        {"retry: 2000\n: connected\n\n: alive\n\nevent: run\ndata: 1\n\n", []Event{{"run", []byte("1")}}},
		"no space":        {"event:run\ndata:1\n\n", []Event{{"run", []byte("1")}}},
		"two data lines":  {"data: a\ndata: b\n\n", []Event{{"", []byte("a\nb")}}},
		"carriage return": {"event: run\r\ndata: 1\r\n\r\n", []Event{{"run", []byte("1")}}},
		"cut off":         {"event: run\ndata: 1\n", nil},
		"no data":         {"event: run\n\ndata: 1\n\n", []Event{{"", []byte("1")}}},
		"colon in data":   {"data: a: b\n\n", []Event{{"", []byte("a: b")}}},
	} {
		got, err := decodeAll(tc.text)
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Whatever comes, decoding ends, and no event has a line break in its name.
func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{"event: run\ndata: 1\n\n", ": alive\n\n", "data", "\r\n\r\n", "data: a\ndata: b\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		events, err := decodeAll(text)
		if err == nil {
			t.Fatal("no end")
		}
		for _, e := range events {
			if strings.Contains(e.Name, "\n") || len(e.Data) > len(text) || bytes.HasSuffix(e.Data, []byte("\r\n")) {
				t.Errorf("event %q %q", e.Name, e.Data)
			}
		}
	})
}
