package main

// metric is one of the figures of a measure. A ratio is of the variant to the
// other: CPU is the other's time per operation divided by the variant's, so that
// more is better as for the rate.
type metric struct {
	name  string
	of    func(measure) float64
	lower bool // is better
}

var (
	efficiency = metric{"CPU", func(m measure) float64 { return 1 / m.CPU }, false}
	throughput = metric{"throughput", func(m measure) float64 { return m.Rate }, false}
	p50        = metric{"p50", func(m measure) float64 { return m.P50 }, true}
	p99        = metric{"p99", func(m measure) float64 { return m.P99 }, true}
	memory     = metric{"RSS", func(m measure) float64 { return m.Mem }, true}
)

// columns are those of the table.
var columns = []metric{efficiency, throughput, p50, p99, memory}

// bar is what a row has to reach.
type bar struct {
	row, variant string
	metric       metric
	bound        float64
	than         key // what the ratio is taken to; its empty fields are the same row and raw
}

var bars = []bar{
	{pipelined, ours, efficiency, 9, key{}},
	{pipelined, ours, efficiency, 0.85, key{Variant: rawDrain}},
	{pipelined, ours, memory, 1.3, key{}},
	{pipelined, oursFramed, efficiency, 7, key{}},
	{flushed, ours, efficiency, 0.92, key{}},
	{rr64, ours, efficiency, 0.90, key{}},
	{rr64, ours, p99, 1.2, key{}},
	{rr512, ours, efficiency, 0.85, key{}},
	{rr512, ours, p99, 1.6, key{}},
	{rr1, ours, efficiency, 0.75, key{}},
	{bulk, oursPool, efficiency, 1, key{}},
	{bulk, ours, efficiency, 0.90, key{}},
	{full, ours, efficiency, 0.94, key{}},
	{resumed, ours, efficiency, 0.92, key{}},
	{mutual, ours, efficiency, 0.92, key{}},
	{idleAfter, ours, memory, 0.60, key{}},
	{idleBefore, ours, memory, 0.62, key{}},
	{inCrowd, ours, efficiency, 1, key{Row: alone, Variant: ours}},
	{credit, ours, memory, 1.3, key{}},
	{whileReload, ours, p99, 1.5, key{Row: noReload, Variant: ours}},
	{whileOrder, ours, p99, 1.5, key{Row: noOrder, Variant: ours}},
}
