package tlstest_test

import (
	"crypto/x509"
	"fmt"
	"log"

	"github.com/ergotls/ergotls/tlstest"
)

// program is a TB of a program; in a test it is the *testing.T.
type program struct{}

func (program) Helper()                           {}
func (program) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }

func ExampleNewCA() {
	var t program // in a test: its own t
	ca := tlstest.NewCA(t, func(template *x509.Certificate) { template.Subject.CommonName = "old root" })
	server := ca.Issue(t, tlstest.Leaf{Names: []string{"example.test"}})
	fmt.Println(server.Leaf.DNSNames, "of", server.Leaf.Issuer.CommonName)
	// Output: [example.test] of old root
}

func ExampleGenerateCA() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ca.Certificate().IsCA, len(ca.PEM()) > 0)
	// Output: true true
}

// A client's certificate that has ended.
func ExampleCA_Generate() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	pair, err := ca.Generate(tlstest.Leaf{CommonName: "alice", Usage: tlstest.ClientOnly}.Expired())
	if err != nil {
		log.Fatal(err)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	fmt.Println(pair.Leaf.Subject.CommonName, err.(x509.CertificateInvalidError).Reason == x509.Expired)
	// Output: alice true
}

// The chain that a server sends is the leaf and the intermediate.
func ExampleCA_GenerateIntermediate() {
	root, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	intermediate, err := root.GenerateIntermediate()
	if err != nil {
		log.Fatal(err)
	}
	pair, err := intermediate.Generate(tlstest.Leaf{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(pair.Certificate().Certificate))
	// Output: 2
}

// An empty list, as a CA issues it before it has revoked anything.
func ExampleCA_GenerateCRL() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	list, err := ca.GenerateCRL(tlstest.CRL{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.24s\n", list)
	// Output: -----BEGIN X509 CRL-----
}
