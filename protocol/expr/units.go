package expr

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"sync"
)

// maxExactInt is 2^53: every whole number up to it is exactly a float.
const maxExactInt = 1 << 53

// Conversion turns a number in one unit into another.
type Conversion struct {
	// factor and shift are the nearest floats: y = x * factor + shift.
	factor, shift float64
	// times, plus and by are whole numbers that say it exactly where there are such: y = (x * times + plus) / by.
	times, plus, by float64
}

// NewConversion is the conversion between two units of one quantity.
func NewConversion(from, to string) (Conversion, error) {
	a, okA := findUnit(from)
	b, okB := findUnit(to)
	if !okA || !okB || a.quantity != b.quantity {
		return Conversion{}, fmt.Errorf("no number converts from %q to %q", from, to)
	}
	factor := new(big.Rat).Quo(a.factor, b.factor)
	shift := new(big.Rat).Quo(new(big.Rat).Sub(a.offset, b.offset), b.factor)
	var c Conversion
	c.factor, _ = factor.Float64()
	c.shift, _ = shift.Float64()
	common := new(big.Int).Mul(factor.Denom(), shift.Denom())
	common.Quo(common, new(big.Int).GCD(nil, nil, factor.Denom(), shift.Denom()))
	by := new(big.Rat).SetInt(common)
	times, plus := new(big.Rat).Mul(factor, by), new(big.Rat).Mul(shift, by)
	exact := true
	for _, v := range []*big.Rat{times, plus, by} {
		exact = exact && new(big.Rat).Abs(v).Cmp(big.NewRat(maxExactInt, 1)) <= 0
	}
	if exact {
		c.times, _ = times.Float64()
		c.plus, _ = plus.Float64()
		c.by, _ = by.Float64()
	}
	return c, nil
}

// Convert turns x into the other unit. Every operation is rounded by itself (a fused product and sum would turn the zero
// that 273.15 K are in degC into the distance of 273.15 from its nearest float), and alike on every processor.
func (c *Conversion) Convert(x float64) float64 {
	if c.by != 0 {
		if y := (float64(x*c.times) + c.plus) / c.by; !math.IsInf(y, 0) {
			return y
		}
	}
	return float64(x*c.factor) + c.shift
}

// unit is a unit with its factor worked out.
type unit struct {
	quantity       string
	factor, offset *big.Rat
}

func findUnit(name string) (u unit, ok bool) {
	u, ok = unitIndex()[name]
	return u, ok
}

// unitNames lists the units of a quantity, or all of them for "".
func unitNames(quantity string) []string {
	var list []string
	for _, q := range Quantities() {
		for _, u := range q.Units {
			if quantity == "" || q.Name == quantity {
				list = append(list, u.Name)
			}
		}
	}
	return list
}

var unitIndex = sync.OnceValue(func() map[string]unit {
	index := map[string]unit{}
	for _, q := range Quantities() {
		for _, u := range q.Units {
			index[u.Name] = unit{quantity: q.Name, factor: exactly(u.Factor), offset: exactly(u.Offset)}
		}
	}
	return index
})

// piDigits are far more than a float has.
const piDigits = "3.14159265358979323846264338327950288419716939937510"

// exactly works out a product or quotient of the table; a test holds that all of them can be read.
func exactly(text string) *big.Rat {
	product := big.NewRat(1, 1)
	if text == "" {
		return new(big.Rat)
	}
	for divide := false; text != ""; {
		end := strings.IndexAny(text, "*/")
		if end < 0 {
			end = len(text)
		}
		number := text[:end]
		if number == "pi" {
			number = piDigits
		}
		if v, ok := new(big.Rat).SetString(number); ok && divide && v.Sign() != 0 {
			product.Quo(product, v)
		} else if ok {
			product.Mul(product, v)
		}
		divide = end < len(text) && text[end] == '/'
		text = text[min(end+1, len(text)):]
	}
	return product
}
