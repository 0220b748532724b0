package meta

import (
	"crypto/x509"
	"fmt"
	"sync"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/internal/dn"
)

// logged records which fields the log of a connection has.
type logged struct{ own, peer sync.Once }

// log returns the log of the connection. The first call adds the fields, since most connections
// never log.
func (c *tcpConnection) log() gen.Log {
	log := c.process.Log()
	c.logged.own.Do(func() {
		fields := []gen.LogField{{Name: "connection", Value: c.process.ID().String()}}
		if c.server != nil {
			fields = append(fields, gen.LogField{Name: "listener", Value: c.server.listener.Addr().String()})
		}
		log.AddFields(append(fields,
			gen.LogField{Name: "remote", Value: c.sock.RemoteAddr().String()},
			gen.LogField{Name: "local", Value: c.sock.LocalAddr().String()},
			gen.LogField{Name: "owner", Value: fmt.Sprint(c.owner())})...)
	})
	if conn := c.stats.tls.Load(); conn != nil {
		if shown := conn.ConnectionState().PeerCertificates; len(shown) > 0 {
			c.logPeer(shown[0])
		}
	}
	return log
}

// logPeer adds the peer to the fields of the log.
func (c *tcpConnection) logPeer(cert *x509.Certificate) {
	c.logged.peer.Do(func() {
		c.process.Log().AddFields(
			gen.LogField{Name: "peer", Value: fmt.Sprintf("%.256s", dn.String(cert.Subject))}, // any peer can present a long name
			gen.LogField{Name: "serial", Value: cert.SerialNumber.Text(16)})
	})
}

// removeFields removes the fields that log and logPeer have added.
func removeFields(log gen.Log) {
	log.DeleteFields("connection", "remote", "local", "owner", "peer", "serial")
}

// debugs reports whether lines of level Debug are logged. Most programs log none, so the caller
// need not make their arguments.
func (c *tcpConnection) debugs() bool { return c.process.Log().Level() <= gen.LogLevelDebug }
