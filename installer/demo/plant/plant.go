package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// presses is how many presses the plant has.
const presses = 8

// order is a work order of the MES.
type order struct {
	ID, Product, Machine string
	Planned              int
	Due                  time.Time
	// Status is PLANNED, RUNNING or DONE.
	Status string
}

// plant is the machines and what they work on. Its time passes with second alone.
type plant struct {
	now     time.Time
	presses []*press
	lathe   *lathe
	// orderChanged hears of every order that is new or changed.
	orderChanged func(order)
}

// products are what the presses make, with the seconds that one part takes.
func products() []product {
	return []product{
		{"bracket-40", 0.9}, {"bracket-60", 1.2}, {"hinge-left", 1.6}, {"hinge-right", 1.6}, {"cover-a", 2.1}, {"flange-80", 1.4},
	}
}

type product struct {
	name    string
	seconds float64
}

// newPlant makes the plant of a seed, in the middle of its work at that time.
func newPlant(seed uint64, now time.Time) *plant {
	p := &plant{now: now, orderChanged: func(order) {}, lathe: newLathe(seed, now)}
	for i := range presses {
		p.presses = append(p.presses, newPress(seed, i+1, now))
	}
	return p
}

// announceOrders tells of every order there is.
func (p *plant) announceOrders() {
	for _, m := range p.presses {
		p.orderChanged(m.current)
		p.orderChanged(m.following)
	}
}

// second lets a second pass and gives each press's message.
func (p *plant) second() []reading {
	p.now = p.now.Add(time.Second)
	readings := make([]reading, 0, len(p.presses))
	for _, m := range p.presses {
		before := m.current.ID
		done := m.current
		readings = append(readings, m.second(p.now))
		if m.current.ID != before {
			done.Status = "DONE"
			p.orderChanged(done)
			p.orderChanged(m.current)
			p.orderChanged(m.following)
		}
	}
	p.lathe.second(p.now)
	return readings
}

// newOrder plans the n-th order of a press.
func newOrder(random *rand.Rand, machine string, number, n int, now time.Time) (order, product) {
	made := products()[random.IntN(len(products()))]
	planned := 150 + 50*random.IntN(8)
	due := now.Add(time.Duration(float64(planned)*made.seconds*1.5) * time.Second).Truncate(time.Minute)
	return order{
		ID: fmt.Sprintf("WO-%d%04d", number, n), Product: made.name, Machine: machine, Planned: planned, Due: due, Status: "PLANNED",
	}, made
}
