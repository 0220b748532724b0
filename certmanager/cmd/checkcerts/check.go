package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/internal/dn"
)

// report is the result of the command, as printed by -json.
type report struct {
	Good    bool                // the files would be put in service
	Errors  []string            `json:",omitempty"` // why not
	Served  []served            `json:",omitempty"`
	Clients []client            `json:",omitempty"`
	Against *against            `json:",omitempty"`
	Status  *certmanager.Status `json:",omitempty"` // of a manager that has the files in service
}

// served is a certificate and the names that it is served for.
type served struct {
	Names       []string // names that clients ask for; wildcards as in the certificate
	Default     bool     // also for all other names, and for clients without SNI
	NotFor      []string `json:",omitempty"` // those of Names that it is not valid for
	OldClients  bool     // only to clients that do not support the key of the first choice
	Certificate certmanager.CertificateInfo
	ChainError  string `json:",omitempty"` // why a client with the CAs of -root-cas, or else those of this system, would not trust it

	chain [][]byte
}

type client struct {
	File    string
	Subject string
	LetIn   bool
	Error   string `json:",omitempty"`
}

func (r *report) code() int {
	switch {
	case !r.Good || slices.ContainsFunc(r.Clients, func(c client) bool { return !c.LetIn }):
		return refused
	case r.Against != nil && !r.Against.same():
		return differs
	}
	return good
}

func (o *options) check() *report {
	m, err := certmanager.New(certmanager.Options{
		Source: o.files, RequireNames: o.names, RequireFreshCRLs: o.freshCRLs, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return &report{Errors: strings.Split(strings.TrimPrefix(err.Error(), "certmanager: "), "\n")}
	}
	defer m.Close()
	status := m.Status()
	r := &report{Good: true, Status: &status}
	r.Served = o.served(m, &status)
	for _, path := range o.clients {
		r.Clients = append(r.Clients, judge(m, path))
	}
	if o.against != "" {
		r.Against = compare(o.against, r.Served)
	}
	return r
}

// served asks for every name as handshakes do, and groups the names by certificate.
func (o *options) served(m *certmanager.Manager, status *certmanager.Status) (all []served) {
	config := m.ServerTLS()
	byKey := make(map[string]int)
	ask := func(name string, schemes []tls.SignatureScheme, old bool) string {
		cert, err := config.GetCertificate(hello(name, schemes))
		if err != nil || cert.Leaf == nil {
			return ""
		}
		key := fmt.Sprint(old, string(cert.Leaf.Raw))
		if _, known := byKey[key]; !known {
			byKey[key] = len(all)
			all = append(all, served{
				OldClients: old, Certificate: info(status, cert.Leaf), ChainError: o.chainError(cert), chain: cert.Certificate,
			})
		}
		s := &all[byKey[key]]
		if s.Default = s.Default || name == ""; name != "" {
			s.Names = append(s.Names, name)
			if net.ParseIP(name) != nil && cert.Leaf.VerifyHostname(name) != nil {
				s.NotFor = append(s.NotFor, name)
			}
		}
		return string(cert.Leaf.Raw)
	}
	for _, name := range append(namesOf(status), "") {
		first := ask(name, append(ecdsaSchemes, rsaSchemes...), false)
		for _, schemes := range [][]tls.SignatureScheme{rsaSchemes, ecdsaSchemes} {
			cert, err := config.GetCertificate(hello(name, schemes))
			if err == nil && first != "" && string(cert.Leaf.Raw) != first && fits(cert, schemes) {
				ask(name, schemes, true)
			}
		}
	}
	return all
}

var (
	ecdsaSchemes = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519}
	rsaSchemes   = []tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.PKCS1WithSHA256}
)

func hello(name string, schemes []tls.SignatureScheme) *tls.ClientHelloInfo {
	if net.ParseIP(name) != nil {
		name = "" // clients send no addresses
	}
	return &tls.ClientHelloInfo{
		ServerName:        strings.Replace(name, "*", wildcardLabel, 1),
		SupportedVersions: []uint16{tls.VersionTLS13},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		SupportedPoints:   []uint8{0},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
		SignatureSchemes:  schemes,
	}
}

// wildcardLabel stands for any name below that of a wildcard.
const wildcardLabel = "checkcerts"

// fits reports whether a client with these schemes could use a certificate: a server without such a
// certificate presents its first.
func fits(cert *tls.Certificate, schemes []tls.SignatureScheme) bool {
	return hello("", schemes).SupportsCertificate(cert) == nil
}

// namesOf returns the DNS names and addresses of the certificates, each once.
func namesOf(status *certmanager.Status) (names []string) {
	seen := make(map[string]bool)
	for _, c := range status.Certificates {
		for _, name := range c.Names {
			if !seen[name] && !strings.Contains(name, "://") {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

func info(status *certmanager.Status, leaf *x509.Certificate) certmanager.CertificateInfo {
	found := certmanager.NewCertificateInfo(leaf, "")
	for _, c := range status.Certificates {
		if c.Fingerprint == found.Fingerprint {
			return c
		}
	}
	return found
}

// chainError returns why clients would not trust a chain. A server may still serve the chain,
// because the CAs of its clients are unknown.
func (o *options) chainError(cert *tls.Certificate) string {
	var roots *x509.CertPool // nil: the system's roots
	if o.files.RootCAs != "" {
		text, err := os.ReadFile(o.files.RootCAs)
		if err != nil {
			return err.Error()
		}
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
	}
	intermediates := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if issuer, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(issuer)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		return err.Error()
	}
	return ""
}

// judge asks the manager as a handshake does.
func judge(m *certmanager.Manager, path string) client {
	c := client{File: path}
	chain, err := readChain(path)
	if err == nil {
		c.Subject = dn.String(chain[0].Subject)
		var config *tls.Config
		if config, err = m.ServerTLS().GetConfigForClient(hello("", rsaSchemes)); err == nil {
			err = config.VerifyConnection(tls.ConnectionState{PeerCertificates: chain})
		}
	}
	if c.LetIn = err == nil; err != nil {
		c.Error = err.Error()
	}
	return c
}

func readChain(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	file, err := pemfile.Parse(text)
	if err != nil {
		return nil, err
	}
	found, err := file.Certificates()
	return found.All, err
}
