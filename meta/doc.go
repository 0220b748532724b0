// Package meta provides TCP servers and TCP connections, with or without TLS, as meta processes of
// the actor framework Ergo.
//
// Call [CreateTCPServer] or [CreateTCPConnection] first, then pass the result to SpawnMeta of the
// process that is to own it. The owner, or the workers named in ProcessPool, receive
// [MessageTCPConnect] when a peer has connected and was verified, [MessageTCP] with received data,
// and [MessageTCPDisconnect] with the reason when the connection has ended. A [MessageTCP] sent to
// the connection's alias is written to the peer.
//
// A gen.CertManager turns TLS on. Any implementation works. This package also uses the following
// methods if the implementation has them; package certmanager of this module, which this package
// does not import, has all of them:
//
//   - ServerTLS() *tls.Config and ClientTLS(serverName string) *tls.Config, ready
//     configurations that the manager keeps up to date. Their ClientSessionCache may have
//     ForHandshake() tls.ClientSessionCache, called before each handshake of a client;
//   - Track, with which the manager ends a connection whose peer is no longer trusted, and
//     Accepting and Dialing, called before a handshake, which return the function to call instead
//     of Track;
//   - ServerHandshake, which performs the handshakes of servers;
//   - ClientCAs, RootCAs, ClientAuth and ServerName, as in the CertAuthManager of Ergo 3.2.
//
// This package has no UDP, no HTTP, and no protocol of its own above the bytes or frames of a
// connection.
package meta

// The files, in the order of a socket's life:
//
//	options, options_parse, check   what a program sets, and what is wrong with it
//	listen, listeners, given        the listening socket
//	server, accept, accepting       accepting, and who gets a connection
//	limits, proxy, refused          which peers are accepted, and how refused ones are counted
//	dial, reconnect, ..._queue      outgoing connections
//	tlsconfig, callbacks,           the handshake, with the functions that the program or its
//	handshake, starttls             manager gives
//	connection, life, owner, due    a connection, its state, its owner, and what it does at a time
//	socket, inbox, frame, read      bytes to messages
//	write, writing, socket_write    messages to bytes
//	end, errors                     the end
//	messages, actors, requests      what the actors get, an actor for each connection, answers
//	peer, stats, inspect, logging   what is going on
//	certwatcher, acmeresponder      meta processes without a TCP connection
