package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

// against has the certificates of a running server.
type against struct {
	Address string
	Names   []shown
	Skipped int    `json:",omitempty"` // names that were not checked, because there are too many
	Error   string `json:",omitempty"` // why the server could not be asked
}

// shown is the certificate of a server for a name; an empty name stands for a client without SNI.
type shown struct {
	Name        string
	Same        bool
	Certificate *certmanager.CertificateInfo `json:",omitempty"`
	Note        string                       `json:",omitempty"`
}

func (a *against) same() bool {
	return a.Error == "" && !slices.ContainsFunc(a.Names, func(s shown) bool { return !s.Same })
}

const (
	maxAsked   = 50
	askTimeout = 5 * time.Second
)

// compare asks the server for each name that the files serve. Any certificate of the files for that
// name is a match.
func compare(address string, all []served) *against {
	a := &against{Address: address}
	want := make(map[string][]served)
	var names []string
	for _, s := range all {
		for _, name := range append(slices.Clone(s.Names), "") {
			if name == "" && !s.Default {
				continue
			}
			if want[name] == nil {
				names = append(names, name)
			}
			want[name] = append(want[name], s)
		}
	}
	if a.Skipped = max(0, len(names)-maxAsked); a.Skipped > 0 {
		names = names[:maxAsked]
	}
	for _, name := range names {
		chain, err := ask(address, name)
		var network *net.OpError
		if chain == nil && errors.As(err, &network) && network.Op == "dial" {
			a.Error = err.Error()
			return a
		}
		a.Names = append(a.Names, match(name, chain, err, want[name]))
	}
	return a
}

// ask returns the chain that a server presents for a name. The server may then end the handshake,
// for example because it requires a client certificate.
func ask(address, name string) (chain []*x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	config := &tls.Config{
		InsecureSkipVerify: true, // the server's certificate is compared, not trusted
		ServerName:         strings.Replace(name, "*", wildcardLabel, 1),
		VerifyConnection: func(state tls.ConnectionState) error {
			chain = state.PeerCertificates
			return nil
		},
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err == nil {
		conn.Close()
	}
	return chain, err
}

func match(name string, chain []*x509.Certificate, err error, want []served) shown {
	if len(chain) == 0 {
		return shown{Name: name, Note: fmt.Sprintf("the server shows no certificate: %v", err)}
	}
	found := certmanager.NewCertificateInfo(chain[0], "")
	s := shown{Name: name, Certificate: &found}
	for _, w := range want {
		if w.Certificate.Fingerprint != found.Fingerprint {
			continue
		}
		s.Same = true
		if !slices.EqualFunc(chain, w.chain, func(c *x509.Certificate, der []byte) bool { return string(c.Raw) == string(der) }) {
			s.Note = fmt.Sprintf("with another chain: it sends %d certificates, the files have %d", len(chain), len(w.chain))
		}
		return s
	}
	if end := want[0].Certificate.NotAfter; found.NotAfter.After(end) {
		s.Note = "it ends later than that of the files"
	}
	if slices.ContainsFunc(want, func(w served) bool { return w.keyOf(chain[0]) }) {
		s.Note = strings.TrimPrefix(s.Note+"; it has the same key", "; ")
	}
	return s
}

// keyOf reports whether a certificate has the same public key, as after a renewal with the same
// key.
func (s *served) keyOf(cert *x509.Certificate) bool {
	leaf, err := x509.ParseCertificate(s.chain[0])
	return err == nil && bytes.Equal(leaf.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo)
}
