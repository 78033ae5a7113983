package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth is how deep messages may nest; ours nest three deep.
const maxDepth = 16

// checkElements counts what an encoded message would make in memory, without making it.
func checkElements(d protoreflect.MessageDescriptor, body []byte, most int) error {
	_, err := elements{most}.count(d, body, 0)
	return err
}

// elements counts up to a bound.
type elements struct{ most int }

func (e elements) count(d protoreflect.MessageDescriptor, body []byte, depth int) (int, error) {
	if depth > maxDepth {
		return 0, fmt.Errorf("it nests deeper than %d: %w", maxDepth, ErrTooBig)
	}
	count := 0
	for len(body) > 0 {
		number, kind, n := protowire.ConsumeTag(body)
		if n < 0 {
			return count, fmt.Errorf("it is not protobuf: %w", protowire.ParseError(n))
		}
		body = body[n:]
		n = protowire.ConsumeFieldValue(number, kind, body)
		if n < 0 {
			return count, fmt.Errorf("it is not protobuf: %w", protowire.ParseError(n))
		}
		value := body[:n]
		body = body[n:]
		field := d.Fields().ByNumber(number)
		if field == nil {
			continue
		}
		inside, err := e.field(field, kind, value, depth)
		if err != nil {
			return count, err
		}
		if count += inside; count > e.most {
			return count, fmt.Errorf("it has more than %d elements: %w", e.most, ErrTooBig)
		}
	}
	return count, nil
}

func (e elements) field(field protoreflect.FieldDescriptor, kind protowire.Type, value []byte, depth int) (int, error) {
	if kind != protowire.BytesType {
		if field.IsList() {
			return 1, nil
		}
		return 0, nil
	}
	content, _ := protowire.ConsumeBytes(value)
	switch {
	case field.Message() != nil:
		inside, err := e.count(field.Message(), content, depth+1)
		return 1 + inside, err
	case field.IsList() && field.Kind() != protoreflect.BytesKind && field.Kind() != protoreflect.StringKind:
		// A packed list of numbers, of one byte each at the least.
		return len(content), nil
	case field.IsList():
		return 1, nil
	default:
		return 0, nil
	}
}
