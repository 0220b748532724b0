//go:build linux

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/spiffe"
)

// TestMain is also the programs that the test runs: what they do is in E2E_PROGRAM.
func TestMain(m *testing.M) {
	if what := os.Getenv("E2E_PROGRAM"); what != "" {
		fmt.Println("failed:", program(strings.Fields(what)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// program is "AGENT serve ID…", which lets in the IDs, or "AGENT call ADDRESS ID", which calls a
// server of that ID again and again.
func program(args []string) error {
	agent, what, args := args[0], args[1], args[2:]
	ids := args
	if what == "call" {
		ids = args[1:]
	}
	rule := certmanager.SPIFFEID(ids...)
	certs, err := certmanager.New(certmanager.Options{
		Source:     &spiffe.Source{Addr: agent, StartTimeout: time.Minute},
		ClientRule: rule, ServerRule: rule,
		Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		return err
	}
	defer certs.Close()
	if what == "serve" {
		return serve(certs)
	}
	for ; ; time.Sleep(50 * time.Millisecond) {
		if serials, err := call(certs, args[0]); err != nil {
			fmt.Println("call failed:", err)
		} else {
			fmt.Println("ok", serials)
		}
	}
}

func serve(certs *certmanager.Manager) error {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", certs.ServerTLS())
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

// call sends a byte there and back, and returns the serials of both certificates.
func call(certs *certmanager.Manager, address string) (string, error) {
	config := certs.ClientTLS("")
	config.ClientSessionCache = nil // each call is a full handshake
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte{1}); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x with %x", certs.GetCertificate().Leaf.SerialNumber, conn.ConnectionState().PeerCertificates[0].SerialNumber), nil
}
