package docs_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// A proxy connects to the server behind it on behalf of each of its clients.
func Example_proxy() {
	seen := make(chan struct{})
	backend, stop := serve(meta.TCPServerOptions{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, func(_ *service, message any) {
		if client, ok := message.(meta.MessageTCPConnect); ok {
			fmt.Println("the client is", client.Peer.Addr, "and wants", client.Peer.Proxy.Authority)
			close(seen)
		}
	})
	defer stop()
	client := meta.MessageTCPConnect{ // in earnest from the client's connection
		LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443},
		Peer:      meta.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}, SNI: "www.example.com"},
	}
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{
		Addrs: []string{backend.listen},
		Proxy: &meta.ProxyHeader{Source: client.Peer.Addr, Destination: client.LocalAddr, Authority: client.Peer.SNI},
	})
	if err != nil {
		log.Fatal(err)
	}
	node := startNode()
	defer node.Stop()
	proxy := &service{handle: func(*service, any) {}}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return proxy }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	if _, err := proxy.SpawnMeta(connection, gen.MetaOptions{}); err != nil {
		log.Fatal(err)
	}
	<-seen
	// Output:
	// the client is 192.0.2.7:40000 and wants www.example.com
}
