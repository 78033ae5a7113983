package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

func TestFraming(t *testing.T) {
	t.Parallel()
	first := &wire.InsightsUp{FirstSeq: 7, Insights: []*wire.InsightRecord{{Name: "press_health", ValuesJson: []byte(`{"n":1}`)}}}
	second := &wire.InsightsUp{}
	var stream bytes.Buffer
	for _, m := range []proto.Message{first, second} {
		if err := wire.WriteMessage(&stream, m); err != nil {
			t.Fatal(err)
		}
	}
	// A stream hands over whatever has arrived, down to single bytes.
	in := iotest.OneByteReader(&stream)
	got := &wire.InsightsUp{FirstSeq: 99, Insights: []*wire.InsightRecord{{}, {}}}
	for _, want := range []proto.Message{first, second} {
		if err := wire.ReadMessage(in, got); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("read %v, want %v", got, want)
		}
	}
	if err := wire.ReadMessage(in, got); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

func TestReadCutOff(t *testing.T) {
	t.Parallel()
	var whole bytes.Buffer
	if err := wire.WriteMessage(&whole, wire.NewHeader(wire.KindControl)); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < whole.Len(); n++ {
		err := wire.ReadMessage(bytes.NewReader(whole.Bytes()[:n]), &wire.StreamHeader{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

func prefixed[N int | uint32](size N, body []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint32(nil, uint32(size))), bytes.NewReader(body))
}

// TestOversizedIsRefusedBeforeAllocation measures what refusing costs.
func TestOversizedIsRefusedBeforeAllocation(t *testing.T) {
	for _, size := range []uint32{wire.MaxMessage + 1, 1 << 30, 1<<32 - 1} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := wire.ReadMessage(prefixed(size, nil), &wire.InsightsUp{})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, wire.ErrTooBig) {
			t.Errorf("size %d: %v, want ErrTooBig", size, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("size %d: refusing it allocated %d bytes", size, got)
		}
	}
}

// TestAllocationFollowsArrival shows that a peer who announces much and sends little costs little.
func TestAllocationFollowsArrival(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := wire.ReadMessage(prefixed(wire.MaxMessage, make([]byte, 1000)), &wire.InsightsUp{})
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("a message that never came allocated %d bytes", got)
	}
}

func TestWriteTooBig(t *testing.T) {
	t.Parallel()
	big := &wire.Desired{Envelope: make([]byte, wire.MaxMessage)}
	var out bytes.Buffer
	if err := wire.WriteMessage(&out, big); !errors.Is(err, wire.ErrTooBig) || out.Len() != 0 {
		t.Errorf("error %v, %d bytes written", err, out.Len())
	}
	big.Envelope = big.Envelope[:wire.MaxMessage-8]
	if err := wire.WriteMessage(&out, big); err != nil {
		t.Fatalf("a message just under the bound: %v", err)
	}
	got := &wire.Desired{}
	if err := wire.ReadMessage(&out, got); err != nil || !proto.Equal(got, big) {
		t.Errorf("reading it back: %v", err)
	}
}

// TestElementsAreBounded sends what is small on the wire and large in memory.
func TestElementsAreBounded(t *testing.T) {
	t.Parallel()
	empty := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil)
	bomb := bytes.Repeat(empty, 1<<20)
	err := wire.ReadMessage(prefixed(len(bomb), bomb), &wire.InsightsUp{})
	if !errors.Is(err, wire.ErrTooBig) {
		t.Errorf("a million empty insights: %v, want ErrTooBig", err)
	}
	// The same one level down: a status with one flow of many sources.
	sources := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, 8, protowire.BytesType), nil), 1<<18)
	nested := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), sources)
	err = wire.ReadMessage(prefixed(len(nested), nested), &wire.Status{})
	if !errors.Is(err, wire.ErrTooBig) {
		t.Errorf("many nested elements: %v, want ErrTooBig", err)
	}
	fine := bytes.Repeat(empty, 10_000)
	if err := wire.ReadMessage(prefixed(len(fine), fine), &wire.InsightsUp{}); err != nil {
		t.Errorf("ten thousand insights: %v", err)
	}
}

func TestCheckHeader(t *testing.T) {
	t.Parallel()
	for _, kind := range wire.Kinds() {
		if got, err := wire.CheckHeader(wire.NewHeader(kind)); err != nil || got != kind {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
	for _, kind := range []string{"", "dial", "forward", "shell", "exec", "tcp", "Control", "control "} {
		if _, err := wire.CheckHeader(&wire.StreamHeader{Version: wire.Version, Kind: kind}); err == nil {
			t.Errorf("the kind %q was accepted", kind)
		}
	}
	for _, version := range []uint32{0, wire.Version + 1} {
		_, err := wire.CheckHeader(&wire.StreamHeader{Version: version, Kind: string(wire.KindControl)})
		if err == nil || !strings.Contains(err.Error(), "update") {
			t.Errorf("version %d: %v, want an error that says what to update", version, err)
		}
	}
}

// TestNoOtherStreamKind holds the promise that there is no network tunnel: no kind of stream exists but those listed
// here, and none can be declared without this test noticing. Adding one is a decision of the design, not of a patch.
func TestNoOtherStreamKind(t *testing.T) {
	t.Parallel()
	want := []string{"control", "insights"}
	var registered []string
	for _, kind := range wire.Kinds() {
		registered = append(registered, string(kind))
	}
	slices.Sort(registered)
	if !slices.Equal(registered, want) {
		t.Errorf("the registry holds %q, want %q", registered, want)
	}
	var declared []string
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			declared = append(declared, kindsIn(t, name)...)
		}
	}
	slices.Sort(declared)
	if !slices.Equal(declared, want) {
		t.Errorf("the sources declare %q, want %q", declared, want)
	}
}

// kindsIn finds the constants of type Kind in a file.
func kindsIn(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Kind" {
			return true
		}
		for _, value := range spec.Values {
			if literal, ok := value.(*ast.BasicLit); ok {
				out = append(out, strings.Trim(literal.Value, `"`))
			}
		}
		return true
	})
	return out
}
