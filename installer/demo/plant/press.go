package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// The states of a press.
const (
	running = "RUN"
	idle    = "IDLE"
	down    = "DOWN"
	jammed  = "JAM"
)

// The physics of a press: a first-order thermal model, in degrees Celsius and seconds.
const (
	ambient = 24.0
	// loadRise is how far above the ambient temperature a press settles that works without a pause.
	loadRise = 46.0
	// inertia is the time constant of warming up and cooling down.
	inertia = 150.0
	// hot is from where on heat costs quality.
	hot = 72.0
)

// reading is a press's message. Count and Scrap are the parts since the message before, the scrap among them.
type reading struct {
	TS        time.Time `json:"ts"`
	Machine   string    `json:"machine"`
	OrderID   string    `json:"order_id"`
	State     string    `json:"state"`
	Temp      float64   `json:"temp"`
	Vibration float64   `json:"vibration"`
	Count     int       `json:"count"`
	Scrap     int       `json:"scrap"`
}

// press is one press.
type press struct {
	random  *rand.Rand
	name    string
	number  int
	state   string
	seconds int // that the state will last; for RUN it ends by other means
	temp    float64
	wear    float64 // of the tool, 0 to 1
	part    float64 // of the part in the making that is done
	// made is the good parts of the current order; after it comes the following one, the orders-th.
	made      int
	orders    int
	current   order
	following order
	making    product
	next      product
}

func newPress(seed uint64, number int, now time.Time) *press {
	p := &press{
		random: rand.New(rand.NewPCG(seed, uint64(number))), //nolint:gosec // a simulation must repeat itself, not be secret
		name:   fmt.Sprintf("P%d", number), number: number, state: running, orders: 2,
	}
	p.current, p.making = newOrder(p.random, p.name, number, 1, now)
	p.following, p.next = newOrder(p.random, p.name, number, 2, now)
	p.current.Status = "RUNNING"
	p.temp = ambient + loadRise*(0.5+0.5*p.random.Float64())
	p.wear = p.random.Float64() * 0.6
	p.made = p.random.IntN(p.current.Planned / 2)
	return p
}

// second lets a second pass, which ends at now.
func (p *press) second(now time.Time) reading {
	r := reading{TS: now, Machine: p.name, OrderID: p.current.ID}
	if p.state == running {
		p.work(&r)
	} else if p.seconds--; p.seconds <= 0 {
		p.state = running
	}
	p.heat(p.state == running)
	r.State = p.state
	r.Temp = round(p.temp+p.random.NormFloat64()*0.15, 2)
	r.Vibration = round(p.shake(), 3)
	if p.made >= p.current.Planned {
		p.changeOver(now)
	}
	return r
}

// work presses for a second; it may end in a jam or a breakdown.
func (p *press) work(r *reading) {
	p.part += 1 / p.making.seconds
	r.Count = int(p.part)
	p.part -= float64(r.Count)
	p.wear = min(p.wear+1.0/40000*float64(r.Count), 1)
	risk := 0.01 + 0.03*p.wear + 0.01*max(p.temp-hot, 0)
	for range r.Count {
		if p.random.Float64() < risk {
			r.Scrap++
		}
	}
	p.made += r.Count - r.Scrap
	switch chance := p.random.Float64(); {
	case chance < (1+2*p.wear)/1200: // a jam about every twenty minutes, more often with a worn tool
		p.state, p.seconds = jammed, 15+p.random.IntN(45)
	case chance > 1-1.0/9000:
		p.state, p.seconds, p.wear = down, 120+p.random.IntN(180), 0 // the tool is changed while it is down
	}
}

// changeOver begins the following order, after the set-up.
func (p *press) changeOver(now time.Time) {
	p.current, p.making = p.following, p.next
	p.current.Status = "RUNNING"
	p.orders++
	p.following, p.next = newOrder(p.random, p.name, p.number, p.orders, now)
	p.made, p.part = 0, 0
	if p.state == running {
		p.state, p.seconds = idle, 30+p.random.IntN(60)
	}
}

// heat moves the temperature for a second towards where the load would let it settle.
func (p *press) heat(loaded bool) {
	settles := ambient
	if loaded {
		settles += loadRise + 4*p.wear
	}
	p.temp += (settles - p.temp) * (1 - math.Exp(-1/inertia))
}

// shake is the vibration in millimetres a second.
func (p *press) shake() float64 {
	noise := math.Abs(p.random.NormFloat64())
	switch p.state {
	case running:
		return 1.6 + 1.2*p.wear + 0.15*noise
	case jammed:
		return 0.4 + 0.3*noise
	}
	return 0.05 + 0.02*noise
}

func round(x float64, digits int) float64 {
	unit := math.Pow10(digits)
	return math.Round(x*unit) / unit
}
