package meta_test

import (
	"io"
	"log/slog"
	"testing"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// BenchmarkEcho is what a message costs between two sockets, the peer's share included: batches of
// 64 messages of 64 bytes, whole, or each a frame of its own, and one message at a time.
func BenchmarkEcho(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	split, err := meta.FixedLength(64)
	require.NoError(b, err)
	for _, m := range modes()[:3] {
		b.Run(m.name+"/whole", func(b *testing.B) { benchmarkEcho(b, m, meta.TCPServerOptions{}, 64) })
		b.Run(m.name+"/frames", func(b *testing.B) { benchmarkEcho(b, m, meta.TCPServerOptions{Split: split}, 64) })
		b.Run(m.name+"/one", func(b *testing.B) { benchmarkEcho(b, m, meta.TCPServerOptions{}, 1) })
	}
}

func benchmarkEcho(b *testing.B, m mode, options meta.TCPServerOptions, batch int) {
	node, err := ergo.StartNode("bench@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	require.NoError(b, err)
	defer node.Stop()
	o := &owner{mail: make(chan any, 16), react: echo}
	pid, err := node.Spawn(func() gen.ProcessBehavior { return o }, gen.ProcessOptions{})
	require.NoError(b, err)
	options.Host, options.CertManager = "127.0.0.1", m.manager
	server, err := meta.CreateTCPServer(options)
	require.NoError(b, err)
	require.NoError(b, node.Send(pid, run(func(o *owner) { o.SpawnMeta(server, gen.MetaOptions{}) })))
	peer := m.dial(b, meta.Stats(server).Listen)
	sent, got := make([]byte, 64*batch), make([]byte, 64*batch)
	b.ReportAllocs()
	b.SetBytes(64)
	for n := 0; b.Loop(); n++ {
		if n%batch != 0 {
			continue
		}
		if _, err := peer.Write(sent); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(peer, got); err != nil {
			b.Fatal(err)
		}
	}
}
