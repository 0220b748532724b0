package acmetest_test

import (
	"fmt"
	"log"
	"time"

	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// program is a TB of a program; in a test it is the *testing.T.
type program struct{ cleanup []func() }

func (*program) Helper()                           {}
func (*program) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (p *program) Cleanup(f func())                { p.cleanup = append(p.cleanup, f) }
func (p *program) end() {
	for _, f := range p.cleanup {
		f()
	}
}

func ExampleStart() {
	t := &program{} // in a test: its own t
	defer t.end()
	ca := acmetest.Start(t)
	fmt.Println(ca.Orders(), "orders so far")
	// Output: 0 orders so far
}

// Certificates that end soon, to see a renewal.
func ExampleStartWith() {
	t := &program{}
	defer t.end()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 10 * time.Second})
	fmt.Println(len(ca.RootCertificates()) > 0)
	// Output: true
}

func ExampleNew() {
	ca, err := acmetest.New(acmetest.Options{ExternalAccounts: map[string][]byte{"key-1": []byte("a secret that the CA has given you")}})
	if err != nil {
		log.Fatal(err)
	}
	defer ca.Close()
	fmt.Println(ca.Accounts(), "accounts so far")
	// Output: 0 accounts so far
}
