package prometheus

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ergotls/ergotls/meta"
)

var (
	serverConnections  = describe("server_connections", "Open connections that were announced to an actor.", "server")
	serverEstablishing = describe("server_connections_establishing", "Accepted connections that were not yet announced to an actor.", "server")
	serverSlots        = describe("server_connection_slots", "The largest number of connections, established or not (MaxConnections); 0 means no limit.", "server")
	serverSuspended    = describe("server_suspended", "1 while the server is suspended and accepts no connection.", "server")
	serverHandshaking  = describe("server_handshakes_computing", "Handshakes that are using the CPU.", "server")
	serverPlaces       = describe("server_handshake_slots", "The largest number of handshakes that use the CPU at the same time (MaxHandshakes); 0 without TLS.", "server")

	serverAccepted     = describe("server_connections_accepted_total", "Accepted connections, including those refused later.", "server")
	serverRefused      = describe("server_connections_refused_total", "Connections that ended before they were announced to an actor, by reason.", "server", "reason")
	serverEnded        = describe("server_connections_ended_total", "Ended connections that were announced to an actor, by reason.", "server", "reason")
	serverAcceptErrors = describe("server_accept_errors_total", "Failed calls of accept, for example for lack of a file descriptor.", "server")
	serverChallenges   = describe("server_acme_challenges_total", "Handshakes of CAs that validate a name.", "server")
	serverHandshakes   = describe("server_handshake_duration_seconds", "Complete TLS handshakes, by version and by whether a session was resumed.", "server", "version", "resumed")

	serverBytesIn      = describe("server_received_bytes_total", "Bytes received, without the overhead of TLS.", "server")
	serverBytesOut     = describe("server_sent_bytes_total", "Bytes sent, without the overhead of TLS.", "server")
	serverMessagesIn   = describe("server_received_messages_total", "Messages to actors.", "server")
	serverMessagesOut  = describe("server_sent_messages_total", "Messages from actors.", "server")
	serverBackPressure = describe("server_backpressure_seconds_total", "The total time that connections have waited for peers to take data.", "server")
)

// endReasons are those for which a connection of a server ends.
var endReasons = []error{
	meta.ErrClosedByPeer, meta.ErrTruncated, meta.ErrReset, meta.ErrIdle, meta.ErrRefused, meta.ErrProtocol, meta.ErrSlowConsumer, meta.ErrFrameTooLarge,
	meta.ErrFraming, meta.ErrOwnerGone, meta.ErrEvicted, meta.ErrDrained, meta.ErrTerminated, meta.ErrStartTLS, meta.ErrHandshake,
}

func collectServer(out chan<- prometheus.Metric, name string, s meta.ServerStats) {
	e := emitter{out, name}
	e.gauge(serverConnections, float64(s.Connections))
	e.gauge(serverEstablishing, float64(s.Establishing))
	e.gauge(serverSlots, float64(s.MaxConnections))
	e.gauge(serverSuspended, number(s.Suspended))
	e.gauge(serverHandshaking, float64(s.Handshaking))
	e.gauge(serverPlaces, float64(s.MaxHandshakes))
	e.counter(serverAccepted, float64(s.Accepted))
	for _, reason := range meta.RefusedReasons { // those that have not happened too, so that the first is an increase
		e.counter(serverRefused, float64(s.Refused[reason]), reason)
	}
	for _, reason := range endReasons {
		e.counter(serverEnded, float64(s.Ended[reason.Error()]), reason.Error())
	}
	e.counter(serverAcceptErrors, float64(s.AcceptErrors))
	e.counter(serverChallenges, float64(s.Challenges))
	for _, h := range s.Handshakes {
		buckets := make(map[float64]uint64, len(h.Buckets))
		for i, n := range h.Buckets {
			buckets[meta.HandshakeBuckets[i].Seconds()] = n
		}
		out <- prometheus.MustNewConstHistogram(serverHandshakes, h.Count, h.Total.Seconds(), buckets, name, h.Version, strconv.FormatBool(h.Resumed))
	}
	e.counter(serverBytesIn, float64(s.BytesIn))
	e.counter(serverBytesOut, float64(s.BytesOut))
	e.counter(serverMessagesIn, float64(s.MessagesIn))
	e.counter(serverMessagesOut, float64(s.MessagesOut))
	e.counter(serverBackPressure, s.BackPressure.Seconds())
}
