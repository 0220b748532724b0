package main

import "slices"

const window = 64 // messages on their way, where pipelined

// The rows of the table.
const (
	pipelined   = "pipelined"
	flushed     = "pipelined, flush each"
	rr64        = "rr 64"
	rr512       = "rr 512"
	rr1         = "rr 1, same core"
	bulk        = "bulk"
	full        = "full handshakes"
	resumed     = "resumed handshakes"
	mutual      = "resumed, client certificates"
	idleAfter   = "crowd idle, after GC"
	idleBefore  = "crowd idle, before GC"
	alone       = "1 % of the crowd, alone"
	inCrowd     = "1 % of the crowd, amid it"
	credit      = "slow actor, credit reads"
	noReload    = "rr 64, before the reloads"
	whileReload = "rr 64, during reloads"
	noOrder     = "full, no order"
	whileOrder  = "full, 50 wait for an order"
)

// rows is their order.
var rows = []string{pipelined, flushed, rr64, rr512, rr1, bulk, full, resumed, mutual, idleAfter, idleBefore, alone, inCrowd,
	credit, noReload, whileReload, noOrder, whileOrder}

// workload is one kind of load and who is to be compared under it.
type workload struct {
	name     string
	variants []string
	rounds   int  // at most, where each is long; 0 is no limit
	crowd    bool // opens that many connections
	sameCore bool // as the server
	prepare  func(*cell, *serverJob) (undo func(), err error)
	run      func(*cell) (map[string]measure, error) // by row
}

func (w workload) atMost(rounds int) int {
	if w.rounds > 0 {
		return min(w.rounds, rounds)
	}
	return rounds
}

// all are the workloads of the table and that of the curve.
func all() []workload {
	small := []string{raw, rawDrain, ours, oursPool, ergoMeta, ergoPool}
	few := []string{raw, ours, ergoMeta, ergoPool}
	return []workload{
		{name: pipelined, variants: []string{raw, rawDrain, ours, oursPool, oursFramed, ergoMeta, ergoPool},
			run: echoes(pipelined, 64, window*frame, frame, true)},
		{name: flushed, variants: small, run: echoes(flushed, 64, window*frame, frame, false)},
		{name: rr64, variants: small, run: echoes(rr64, 64, frame, frame, false)},
		{name: rr512, variants: small, run: echoes(rr512, 512, frame, frame, false)},
		{name: rr1, variants: small, sameCore: true, run: echoes(rr1, 1, frame, frame, false)},
		{name: bulk, variants: small, run: echoes(bulk, 8, 64<<10, 64<<10, false)},
		{name: full, variants: []string{raw, ours, ergoMeta}, run: handshakes(full, false)},
		{name: resumed, variants: []string{raw, ours, ergoMeta}, run: handshakes(resumed, true)},
		{name: mutual, variants: []string{raw, ours}, prepare: askForCertificate, run: handshakes(mutual, true)},
		{name: "crowd", variants: few, crowd: true, run: crowd},
		{name: credit, variants: []string{raw, ours}, prepare: slowDown, run: flood},
		{name: "reload", variants: []string{ours}, prepare: makePairs, run: reload},
		{name: "order", variants: []string{ours}, prepare: orderCertificate, run: beside},
		{name: "curve", variants: []string{raw, ours}, rounds: 5, crowd: true, run: steps},
	}
}

func find(name string) workload {
	list := all()
	return list[slices.IndexFunc(list, func(w workload) bool { return w.name == name })]
}

// echoes is a workload of n connections that send total bytes in messages of size and wait for all
// of them.
func echoes(row string, n, total, size int, batched bool) func(*cell) (map[string]measure, error) {
	return func(c *cell) (map[string]measure, error) {
		clients, err := c.dialAll(n, total)
		if err != nil {
			return nil, err
		}
		m, err := c.measure(echoing(clients, total, size, batched))
		return map[string]measure{row: m}, err
	}
}

func echoing(clients []*client, total, size int, batched bool) []func() (int, error) {
	var operations []func() (int, error)
	for _, l := range clients {
		operations = append(operations, func() (int, error) { return l.echo(total, size, batched) })
	}
	return operations
}
