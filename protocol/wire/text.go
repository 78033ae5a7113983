package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Encode gives the message as bytes. Texts in it come from files and systems of the plant and may have bytes that are no
// UTF-8, with which no message can be encoded: each run of them becomes one replacement character. The message itself
// stays as it is.
func Encode(m proto.Message) ([]byte, error) { return appendMessage(nil, m) }

// appendMessage appends the message to dst. Only a message that cannot be encoded is looked through.
func appendMessage(dst []byte, m proto.Message) ([]byte, error) {
	out, err := proto.MarshalOptions{}.MarshalAppend(dst, m)
	if err != nil {
		valid := proto.Clone(m)
		makeValid(valid.ProtoReflect())
		out, err = proto.MarshalOptions{}.MarshalAppend(dst, valid)
	}
	if err != nil {
		return nil, fmt.Errorf("encode a %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return out, nil
}

// validText is a text without bytes that are no UTF-8.
func validText(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }

// makeValid mends every text in the message, and in those that it holds. The keys of maps are words of the program.
func makeValid(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			entries := value.Map()
			entries.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				if mended, ok := mend(field.MapValue(), v); ok {
					entries.Set(key, mended)
				}
				return true
			})
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				if mended, ok := mend(field, list.Get(i)); ok {
					list.Set(i, mended)
				}
			}
		default:
			if mended, ok := mend(field, value); ok {
				m.Set(field, mended)
			}
		}
		return true
	})
}

// mend gives the value that takes the place of one that is not valid; a message is mended in place.
func mend(field protoreflect.FieldDescriptor, value protoreflect.Value) (protoreflect.Value, bool) {
	switch {
	case field.Message() != nil:
		makeValid(value.Message())
	case field.Kind() == protoreflect.StringKind && !utf8.ValidString(value.String()):
		return protoreflect.ValueOfString(validText(value.String())), true
	}
	return value, false
}
