//go:build linux

package chaos

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
)

// netns is a network namespace with a server in it, at the other end of a cable.
type netns struct {
	w           *world
	name, cable string
}

var namespaces atomic.Int32

// elsewhere puts the server into a network namespace of its own.
func (w *world) elsewhere() netns {
	w.t.Helper()
	w.mayMount()
	ip := needs.Program(w.t, "ip")
	n := namespaces.Add(1)
	ns := netns{w, fmt.Sprintf("server%d", n), fmt.Sprintf("cable%d", n)}
	here, there := fmt.Sprintf("10.231.%d.1", n), fmt.Sprintf("10.231.%d.2", n)
	if n == 1 { // names of namespaces that end with this process
		require.NoError(w.t, os.MkdirAll("/run/netns", 0o755))
		require.NoError(w.t, command(needs.Program(w.t, "mount"), "-t", "tmpfs", "tmpfs", "/run/netns"))
	}
	if err := command(ip, "netns", "add", ns.name); err != nil {
		w.forbidden("network namespaces", err)
	}
	w.t.Cleanup(func() { command(ip, "netns", "delete", ns.name) })
	for _, line := range []string{
		"link add " + ns.cable + " type veth peer name eth0 netns " + ns.name,
		"address add " + here + "/30 dev " + ns.cable,
		"link set " + ns.cable + " up",
		"-n " + ns.name + " address add " + there + "/30 dev eth0",
		"-n " + ns.name + " link set lo up",
		"-n " + ns.name + " link set eth0 up",
	} {
		if err := command(ip, strings.Fields(line)...); err != nil {
			w.forbidden("veth interfaces", err)
		}
	}
	w.setup.Addr = there + ":7000"
	w.front = []string{ip, "netns", "exec", ns.name}
	return ns
}

// run runs a command in the namespace.
func (ns netns) run(name string, args ...string) error {
	return command(needs.Program(ns.w.t, "ip"), append([]string{"netns", "exec", ns.name, needs.Program(ns.w.t, name)}, args...)...)
}

// filter applies a rule to everything that comes in, until lift.
func (ns netns) filter(rule string) (lift func()) {
	ns.w.t.Helper()
	for _, line := range []string{"add table inet chaos", "add chain inet chaos in { type filter hook input priority 0 ; }", "add rule inet chaos in " + rule} {
		if err := ns.run("nft", strings.Fields(line)...); err != nil {
			ns.w.forbidden("packet filter", err)
		}
	}
	return func() { require.NoError(ns.w.t, ns.run("nft", "delete", "table", "inet", "chaos")) }
}

// A tenth of all packets is lost, both ways: slower, and else as ever.
func TestPacketLoss(t *testing.T) {
	w := newWorld(t, "network: a tenth of the packets lost")
	ns := w.elsewhere()
	tc, ip := needs.Program(t, "tc"), needs.Program(t, "ip")
	w.begin()
	lift := func() {
		for _, in := range [][]string{{tc}, {ip, "netns", "exec", ns.name, tc}} {
			dev := ns.cable
			if len(in) > 1 {
				dev = "eth0"
			}
			require.NoError(t, command(in[0], append(in[1:], "qdisc", "delete", "dev", dev, "root")...))
		}
	}
	err := ns.run("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "10%")
	if err == nil {
		require.NoError(t, command(tc, "qdisc", "add", "dev", ns.cable, "root", "netem", "loss", "10%"))
	} else { // a kernel without netem: a filter that throws them away as they arrive
		lift = ns.filter("numgen random mod 100 < 10 drop")
	}
	next := w.rotate()
	before := w.traffic.echoed.Load()
	w.served(next, 20*time.Second) // also while it lasts
	w.await("messages", 60*time.Second, func(report) bool { return w.traffic.echoed.Load() > before+20*stayers })
	next = w.rotate()
	lift()
	w.row.visible = "nothing to see: TCP repeats what is lost"
	w.served(next, soon)
	w.finish()
}

// Every packet vanishes, as behind a firewall that forgot its connections: what can't be heard of
// any more is given up.
func TestBlackHole(t *testing.T) {
	w := newWorld(t, "network: black hole")
	ns := w.elsewhere()
	w.setup.Idle = 2 * time.Second
	w.begin()
	w.await("its clients", 10*time.Second, func(r report) bool { return r.Stats.Connections >= stayers })
	w.tolerant.Store(true)
	lift := ns.filter("meta l4proto tcp drop")
	next := w.rotate()
	w.visible("Stats.Ended idle", func(r report) bool { return r.Stats.Ended[meta.ErrIdle.Error()] >= stayers && r.Stats.Connections == 0 })
	assert.Equal(t, uint64(2), w.ask("status").Status.Generation, "it does not need the network for its files")
	lift()
	w.served(next, soon)
	w.finish()
}

// Every connection is reset, and so is every attempt to make one.
func TestReset(t *testing.T) {
	w := newWorld(t, "network: connections reset")
	ns := w.elsewhere()
	w.begin()
	w.await("its clients", 10*time.Second, func(r report) bool { return r.Stats.Connections >= stayers })
	w.tolerant.Store(true)
	lift := ns.filter("meta l4proto tcp reject with tcp reset") // for the clients; the server's ends are reset by
	if err := ns.run("ss", "-K", "state", "established"); err != nil {
		w.forbidden("ss -K", err)
	}
	next := w.rotate()
	w.visible("Stats.Ended reset", func(r report) bool {
		return r.Stats.Connections == 0 && r.Stats.Ended[meta.ErrReset.Error()] >= stayers
	})
	lift()
	w.served(next, soon)
	w.finish()
}
