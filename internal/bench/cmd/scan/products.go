package main

import (
	"bufio"
	"bytes"
	"fmt"
)

// product is what W3 keeps of a product.
type product struct {
	name        string
	n, quantity int64
}

// perProduct is W3: a map from the order to the place of its product, then one sum for each.
func perProduct(production, orders, out string, workers int) error {
	productOf := map[string]int32{}
	places := map[string]int32{}
	var products []product
	err := eachPart(orders, 1, func(_ int, lines []byte) {
		for len(lines) > 0 {
			order, rest, _ := bytes.Cut(lines, []byte{','})
			name, rest, _ := bytes.Cut(rest, []byte{','})
			_, lines, _ = bytes.Cut(rest, []byte{'\n'})
			if string(name) == "product" {
				continue // the header
			}
			place, ok := places[string(name)]
			if !ok {
				place = int32(len(products)) //nolint:gosec // a few hundred
				places[string(name)] = place
				products = append(products, product{name: string(name)})
			}
			productOf[string(order)] = place
		}
	})
	if err != nil {
		return err
	}
	parts := make([][]product, workers)
	for w := range parts {
		parts[w] = make([]product, len(products))
	}
	err = eachPart(production, workers, func(w int, lines []byte) {
		i := 0
		if bytes.HasPrefix(lines, []byte("order_id")) {
			i = bytes.IndexByte(lines, '\n') + 1
		}
		for i < len(lines) {
			end := i + bytes.IndexByte(lines[i:], ',')
			place, known := productOf[string(lines[i:end])]
			_, i = number(lines, end+1)
			_, i = number(lines, i+len(",M"))
			quantity, after := number(lines, i+1)
			i = after + 1
			if known {
				p := &parts[w][place]
				p.n++
				p.quantity += quantity
			}
		}
	})
	if err != nil {
		return err
	}
	return writeLines(out, func(w *bufio.Writer) {
		for i := range products {
			p := &products[i]
			for _, part := range parts {
				p.n, p.quantity = p.n+part[i].n, p.quantity+part[i].quantity
			}
			if p.n > 0 {
				fmt.Fprintf(w, `{"product":%q,"n":%d,"quantity":%d}`+"\n", p.name, p.n, p.quantity)
			}
		}
	})
}
