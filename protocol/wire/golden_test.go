package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/outfeed/outfeed/protocol/wire"
)

var update = flag.Bool("update", false, "write the golden files anew") //nolint:gochecknoglobals // the usual form of a test flag

// goldenDir holds the messages of this version. Those of an older version that is still spoken keep their directory.
var goldenDir = filepath.Join("testdata", fmt.Sprintf("v%d", wire.Version)) //nolint:gochecknoglobals // a constant path

// samples makes every message of the protocol with every field set, and one more of a message for each further
// alternative of a oneof, so that no field can be added without a golden file noticing.
func samples() map[string]proto.Message {
	out := map[string]proto.Message{}
	messages := wire.File_protocol_wire_wire_proto.Messages()
	for i := range messages.Len() {
		d := messages.Get(i)
		if d.Oneofs().Len() == 0 || d.Oneofs().Get(0).IsSynthetic() {
			out[string(d.Name())] = fill(d, nil)
			continue
		}
		alternatives := d.Oneofs().Get(0).Fields()
		for j := range alternatives.Len() {
			f := alternatives.Get(j)
			out[string(d.Name())+"."+string(f.Name())] = fill(d, f)
		}
	}
	return out
}

func fill(d protoreflect.MessageDescriptor, alternative protoreflect.FieldDescriptor) proto.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if of := f.ContainingOneof(); of != nil && !of.IsSynthetic() && f != alternative {
			continue
		}
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for n := range 2 {
				key := value(f.MapKey(), n).MapKey()
				entries.Set(key, value(f.MapValue(), n))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for n := range 2 {
				list.Append(value(f, n))
			}
		default:
			m.Set(f, value(f, 0))
		}
	}
	return m
}

func value(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	number := uint64(f.Number())*1_000_000_007 + uint64(n) //nolint:gosec // small positive numbers
	text := fmt.Sprintf("%s-%d", f.Name(), n)
	switch f.Kind() { //nolint:exhaustive // the others panic until a message uses them
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text + "\x00\xff"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<63 + number)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-int64(number)) //nolint:gosec // small numbers
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()) * 1_000_003) //nolint:gosec // small positive numbers
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.MessageKind:
		return protoreflect.ValueOfMessage(fill(f.Message(), nil).ProtoReflect())
	default:
		panic("teach the golden test about fields of kind " + f.Kind().String())
	}
}

// typed gives an empty message of the generated type.
func typed(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	for _, known := range generated() {
		if known.ProtoReflect().Descriptor().FullName() == m.ProtoReflect().Descriptor().FullName() {
			return known
		}
	}
	t.Fatalf("%s is not in the list of generated messages of this test", m.ProtoReflect().Descriptor().FullName())
	return nil
}

func generated() []proto.Message {
	return []proto.Message{
		&wire.StreamHeader{}, &wire.ControlUp{}, &wire.ControlDown{}, &wire.Enroll{}, &wire.Host{}, &wire.Enrolled{},
		&wire.Hello{}, &wire.Welcome{}, &wire.Desired{}, &wire.Refusal{}, &wire.Bundle{}, &wire.BundleFlow{},
		&wire.BundleConnection{}, &wire.Status{}, &wire.OpenRuns{}, &wire.FlowStatus{}, &wire.SourceStatus{}, &wire.Outbox{}, &wire.DamagedFile{}, &wire.SetAside{},
		&wire.RunReport{}, &wire.StepCount{}, &wire.FailedRecord{}, &wire.InsightsUp{}, &wire.InsightsDown{},
		&wire.InsightRecord{}, &wire.Receipt{}, &wire.RotateNow{}, &wire.Rotate{}, &wire.Rotated{},
	}
}

// TestGolden holds the bytes of every message: they may gain fields, and never change.
func TestGolden(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for name, sample := range samples() {
		names[name+".hex"], names[name+".json"] = true, true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(sample)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".hex", []byte(strings.Join(chunks(hex.EncodeToString(encoded), 100), "\n")+"\n"))
			golden(t, name+".json", readable(t, sample))

			// What is in the file reads back into the generated type and is written the same.
			into := typed(t, sample)
			var framed bytes.Buffer
			if err = wire.WriteMessage(&framed, sample); err != nil {
				t.Fatal(err)
			}
			if err = wire.ReadMessage(&framed, into); err != nil {
				t.Fatal(err)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(into)
			if err != nil || !bytes.Equal(again, encoded) {
				t.Errorf("the generated type writes other bytes: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(goldenDir)
		if err != nil {
			t.Error(err)
		}
		for _, entry := range entries {
			if !names[entry.Name()] {
				t.Errorf("%s belongs to no message; messages are never removed", entry.Name())
			}
		}
	})
}

func readable(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// protojson varies its white space on purpose.
	var compact, out bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		t.Fatal(err)
	}
	if err := json.Indent(&out, compact.Bytes(), "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}

func chunks(text string, size int) []string {
	var out []string
	for len(text) > size {
		out, text = append(out, text[:size]), text[size:]
	}
	return append(out, text)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join(goldenDir, name)
	if *update {
		if err := os.MkdirAll(goldenDir, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./protocol/wire -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has changed:\n got %s\nwant %s\nadding a field: go test ./protocol/wire -update", path, got, want)
	}
}

// FuzzReadMessage feeds every decoder with anything.
func FuzzReadMessage(f *testing.F) {
	for _, sample := range samples() {
		var framed bytes.Buffer
		if err := wire.WriteMessage(&framed, sample); err != nil {
			f.Fatal(err)
		}
		f.Add(framed.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 2, 0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, into := range generated() {
			if err := wire.ReadMessage(bytes.NewReader(data), into); err != nil {
				continue
			}
			var out bytes.Buffer
			if err := wire.WriteMessage(&out, into); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			again := proto.Clone(into)
			if err := wire.ReadMessage(&out, again); err != nil || !proto.Equal(into, again) {
				t.Fatalf("%v is read back as %v, %v", into, again, err)
			}
		}
	})
}

// TestOlderVersions reads what the programs of older versions wrote: no field of theirs is forgotten.
func TestOlderVersions(t *testing.T) {
	t.Parallel()
	for version := wire.MinVersion; version < wire.Version; version++ {
		files, err := filepath.Glob(filepath.Join("testdata", fmt.Sprintf("v%d", version), "*.hex"))
		if err != nil || len(files) == 0 {
			t.Fatalf("version %d has %d files, %v", version, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(filepath.Base(file), ".")
			for _, m := range generated() {
				if string(m.ProtoReflect().Descriptor().Name()) != name {
					continue
				}
				if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(want, m); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				got, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s does not read back as it is: %v", file, err)
				}
			}
		}
	}
}
