package wire_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

func TestTextsThatAreNoUTF8BecomeValid(t *testing.T) {
	t.Parallel()
	const bad, good = "Lager \xff\xfeM\xfcller", "Lager \ufffdM\ufffdller"
	for name, c := range map[string]struct{ sent, want proto.Message }{
		"a report": {
			&wire.RunReport{RunId: "r", Error: bad, RecordsFailed: 1, FailedSample: []*wire.FailedRecord{{Where: "a"}, {Where: bad, Record: bad}}},
			&wire.RunReport{RunId: "r", Error: good, RecordsFailed: 1, FailedSample: []*wire.FailedRecord{{Where: "a"}, {Where: good, Record: good}}},
		},
		"a status, nested": {
			&wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{Flows: []*wire.FlowStatus{{Error: bad}}, Outbox: &wire.Outbox{Degraded: bad, Expired: map[string]uint64{"expired_age": 1}}}}},
			&wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{Flows: []*wire.FlowStatus{{Error: good}}, Outbox: &wire.Outbox{Degraded: good, Expired: map[string]uint64{"expired_age": 1}}}}},
		},
		"bytes stay": {
			&wire.InsightRecord{Name: bad, ValuesJson: []byte(bad)},
			&wire.InsightRecord{Name: good, ValuesJson: []byte(bad)},
		},
		"labels": {
			&wire.Enroll{Labels: map[string]string{"hall": bad}},
			&wire.Enroll{Labels: map[string]string{"hall": good}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := proto.Clone(c.sent)
			encoded, err := wire.Encode(c.sent)
			if err != nil {
				t.Fatal(err)
			}
			var stream bytes.Buffer
			if err := wire.WriteMessage(&stream, c.sent); err != nil {
				t.Fatal(err)
			}
			got, streamed := c.want.ProtoReflect().New().Interface(), c.want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(encoded, got); err != nil {
				t.Fatal(err)
			}
			if err := wire.ReadMessage(&stream, streamed); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c.want) || !proto.Equal(streamed, c.want) {
				t.Errorf("got %v and %v, want %v", got, streamed, c.want)
			}
			if !proto.Equal(c.sent, before) {
				t.Error("the message was changed")
			}
		})
	}
}

// FuzzEncode encodes any text: what comes out is always a message with valid texts.
func FuzzEncode(f *testing.F) {
	f.Add("plain")
	f.Add("\xff\xc0")
	f.Fuzz(func(t *testing.T, text string) {
		encoded, err := wire.Encode(&wire.RunReport{Error: text})
		got := &wire.RunReport{}
		if err == nil {
			err = proto.Unmarshal(encoded, got)
		}
		if err != nil || !utf8.ValidString(got.GetError()) || utf8.ValidString(text) && got.GetError() != text {
			t.Errorf("%q becomes %q, %v", text, got.GetError(), err)
		}
	})
}
