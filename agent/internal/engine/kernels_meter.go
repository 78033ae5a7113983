package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// meteredKernel counts the memory that another kernel keeps for its texts, where the batch has a meter. A kernel keeps
// what its largest batch took, so memory that was counted once is not counted again. When the meter allows no more, the
// texts are null; what set the meter ends the run.
type meteredKernel struct {
	kernel
	held int
	none column.Column
}

// meterTexts puts a meter on a kernel that makes texts.
func meterTexts(k kernel, t expr.Type) kernel {
	if storageOf(t) != storeText {
		return k
	}
	switch k.(type) {
	case *literalKernel, *columnKernel, *meteredKernel:
		return k
	}
	return &meteredKernel{kernel: k, none: column.Column{Type: t}}
}

func (k *meteredKernel) eval(b *column.Batch) *column.Column {
	if b.Texts == nil {
		return k.kernel.eval(b)
	}
	if !b.Texts.Grow(0) {
		k.none.Reset()
		for range b.Len {
			k.none.AppendNull()
		}
		return &k.none
	}
	out := k.kernel.eval(b)
	if room, ok := b.Texts.(*textRoom); ok {
		if len(out.Data) > 0 {
			room.made = append(room.made, &out.Data[0])
		}
		room.Grow(cap(out.Data) - k.held)
		k.held = cap(out.Data)
	} else if more := cap(out.Data) - k.held; more > 0 {
		k.held += more
		b.Texts.Grow(more)
	}
	return out
}
