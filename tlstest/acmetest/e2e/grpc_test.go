package e2e

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// A grpc server that wants client certificates runs no handler for a client that poses as a CA
// which validates a name, while a challenge of that name is open.
func TestGRPCAndChallenges(t *testing.T) {
	t.Parallel()
	ca, clients := acmetest.Start(t), tlstest.NewCA(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}}, certmanager.Static{ClientCAs: clients.Pool()})
	always := clients.Issue(t, tlstest.Leaf{Names: []string{name}}).Certificate()
	function, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.DiscardHandler), Source: certmanager.Sources{
		certmanager.Static{ClientCAs: clients.Pool()},
		certmanager.Func(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &always, nil }),
	}})
	require.NoError(t, err)
	defer function.Close()
	for source, m := range map[string]*certmanager.Manager{"ACME": w.Manager, "Func": function} {
		t.Run(source, func(t *testing.T) {
			var ran atomic.Int32
			config := m.ServerTLS()
			config.NextProtos = []string{"h2"}
			server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
				ran.Add(1)
				return status.Error(codes.AlreadyExists, "reached")
			}))
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			go server.Serve(listener)
			defer server.Stop()
			call := func(config *tls.Config) error {
				client, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
						return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
					}))
				require.NoError(t, err)
				defer client.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				return client.Invoke(ctx, "/any/Method", &emptypb.Empty{}, &emptypb.Empty{})
			}
			unproven := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}}
			require.Error(t, call(unproven))
			assert.Zero(t, ran.Load(), "the handler ran for a client without a certificate")
			known := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2"},
				Certificates: []tls.Certificate{clients.Issue(t, tlstest.Leaf{}).Certificate()}}
			assert.Equal(t, codes.AlreadyExists, status.Code(call(known)))
			assert.EqualValues(t, 1, ran.Load())
		})
	}
}
