package meta_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

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

// BenchmarkClient is what a message and its answer cost an actor with an outgoing connection: the
// least, with Reconnect, and with Requests too. The peer, which is Go's own, has its share.
func BenchmarkClient(b *testing.B) {
	for _, m := range modes()[:3] {
		b.Run(m.name+"/once", func(b *testing.B) { benchmarkClient(b, m, nil, false) })
		b.Run(m.name+"/Reconnect", func(b *testing.B) { benchmarkClient(b, m, &meta.Reconnect{Keep: true}, false) })
		b.Run(m.name+"/Requests", func(b *testing.B) { benchmarkClient(b, m, &meta.Reconnect{Keep: true}, true) })
	}
}

func benchmarkClient(b *testing.B, m mode, again *meta.Reconnect, answered bool) {
	const batch = 64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err == nil && m.tls() {
			conn = tls.Server(conn, m.manager.(manager).server)
		}
		if err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	node, err := ergo.StartNode("bench@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	require.NoError(b, err)
	defer node.Stop()
	var requests meta.Requests[uint64]
	var n uint64
	done := make(chan struct{}, 1)
	o := &owner{mail: make(chan any, 16), react: func(o *owner, message any) bool {
		in, ok := message.(meta.MessageTCP)
		if !ok {
			return true
		}
		if answered {
			requests.Answer(o, binary.BigEndian.Uint64(in.Data), nil)
		}
		if n++; n%batch == 0 {
			done <- struct{}{}
		}
		return true
	}}
	pid, err := node.Spawn(func() gen.ProcessBehavior { return o }, gen.ProcessOptions{})
	require.NoError(b, err)
	options := m.reconnecting(nil, listener.Addr().String(), meta.Reconnect{})
	options.Reconnect = again
	options.Split, err = meta.FixedLength(64)
	require.NoError(b, err)
	connection, err := meta.CreateTCPConnection(options)
	require.NoError(b, err)
	var id gen.Alias
	started := make(chan error, 1)
	require.NoError(b, node.Send(pid, run(func(o *owner) {
		var err error
		id, err = o.SpawnMeta(connection, gen.MetaOptions{})
		started <- err
	})))
	require.NoError(b, <-started)
	var sent uint64
	send := run(func(o *owner) {
		for range batch {
			data := binary.BigEndian.AppendUint64(make([]byte, 0, 64), sent)[:64]
			if answered {
				requests.Send(o, o.PID(), gen.Ref{}, id, sent, data, time.Minute)
			} else {
				o.SendAlias(id, meta.MessageTCP{Data: data})
			}
			sent++
		}
	})
	b.ReportAllocs()
	b.SetBytes(64)
	for i := 0; b.Loop(); i++ {
		if i%batch == 0 {
			require.NoError(b, node.Send(pid, send))
			<-done
		}
	}
}
