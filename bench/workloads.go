package main

const window = 64 // messages on their way, where pipelined

// workload is one kind of load and who is to be compared under it.
type workload struct {
	name     string
	variants []string
	rounds   int  // at most, where more tell nothing; 0 is no limit
	sameCore bool // as the server
	prepare  func(*cell, *serverJob) (undo func(), err error)
	run      func(*cell) (map[string]measure, error) // by row of the table
}

var workloads []workload

// rows are those of the table, in its order.
var rows = []string{"pipelined", "pipelined, flush each", "rr 64", "rr 512", "rr 1, same core", "bulk"}

func init() { // the load process looks its workload up, which would be a cycle
	small := []string{raw, rawDrain, ours, oursPool, ergoMeta, ergoPool}
	workloads = []workload{
		{name: "pipelined", variants: []string{raw, rawDrain, ours, oursPool, oursFramed, ergoMeta, ergoPool},
			run: echoes("pipelined", 64, window*frame, frame, true)},
		{name: "pipelined, flush each", variants: small,
			run: echoes("pipelined, flush each", 64, window*frame, frame, false)},
		{name: "rr 1, same core", variants: small, sameCore: true, run: echoes("rr 1, same core", 1, frame, frame, false)},
		{name: "rr 64", variants: small, run: echoes("rr 64", 64, frame, frame, false)},
		{name: "rr 512", variants: small, run: echoes("rr 512", 512, frame, frame, false)},
		{name: "bulk", variants: small, run: echoes("bulk", 8, 64<<10, 64<<10, false)},
	}
}

// echoes is a workload of n connections that send total bytes in messages of size and wait for all of them.
func echoes(row string, n, total, size int, batched bool) func(*cell) (map[string]measure, error) {
	return func(c *cell) (map[string]measure, error) {
		clients, err := c.dialAll(n, max(total, frame))
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
