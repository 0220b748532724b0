package docs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// The mount of a secret as the kubelet keeps it, and what cert-manager's renewal does to it.
func Example_kubernetes() {
	mount, err := os.MkdirTemp("", "secret")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(mount)
	ca := newCA()
	renew := func(name string) {
		p := pair(ca, tlstest.Leaf{CommonName: name})
		files := map[string][]byte{"tls.crt": p.CertPEM, "tls.key": p.KeyPEM, "ca.crt": ca.PEM()}
		if err := tlstest.KubernetesSwap(mount, files, nil); err != nil {
			log.Fatal(err)
		}
	}
	renew("first")
	target, _ := os.Readlink(filepath.Join(mount, "tls.crt"))
	fmt.Println("tls.crt is a link to", filepath.ToSlash(target))

	certs, err := certmanager.New(certmanager.Options{
		Source: certmanager.Files{
			Cert:      mount + "/tls.crt",
			Key:       mount + "/tls.key",
			ClientCAs: mount + "/ca.crt", // leave it out where clients have no certificates
		},
		RequireNames: []string{"localhost"}, // a secret for another host is never served
	})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	events := make(chan certmanager.Event, 16)
	defer certs.Subscribe(func(e certmanager.Event) { events <- e })()
	fmt.Println("serving", certs.GetCertificate().Leaf.Subject.CommonName)
	renew("second")
	event := <-events
	fmt.Println(event.Kind, certs.GetCertificate().Leaf.Subject.CommonName)
	// Output:
	// tls.crt is a link to ..data/tls.crt
	// serving first
	// loaded second
}

// credentials serves what systemd has put into the service's own folder.
func credentials() (*certmanager.Manager, error) {
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	return certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: filepath.Join(folder, "tls.crt"), Key: filepath.Join(folder, "tls.key"),
	}})
}

func Example_credentials() {
	dir, leave := folder(newCA())
	defer leave()
	also(dir, "server.crt", "tls.crt")
	also(dir, "server.key", "tls.key")
	os.Setenv("CREDENTIALS_DIRECTORY", dir)
	defer os.Unsetenv("CREDENTIALS_DIRECTORY")
	certs, err := credentials()
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	fmt.Println(certs.Status().Certificates[0].Names)
	// Output: [localhost 127.0.0.1 ::1]
}

// activated takes the socket that systemd has opened for this service.
func activated() (net.Listener, error) {
	listeners, err := meta.SystemdListeners("") // or the FileDescriptorName of one of several
	if err != nil {
		return nil, err
	}
	return listeners[0], nil
}

// reloadOnHangup reads the files at SIGHUP too, at once.
func reloadOnHangup(ctx context.Context, certs *certmanager.Manager) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	for {
		select {
		case <-hangup:
			if err := certs.Reload(ctx); err != nil {
				log.Print(err) // the set in service stays
			}
		case <-ctx.Done():
			signal.Stop(hangup)
			return
		}
	}
}

func Example_reload() {
	ca := newCA()
	dir, leave := folder(ca)
	defer leave()
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: "server.crt", Key: "server.key"}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()

	key, err := os.ReadFile("server.key")
	if err != nil {
		log.Fatal(err)
	}
	pair(ca, tlstest.Leaf{}).WriteFiles(dir, "server")
	os.WriteFile("server.key", key, 0o600) // the old key beside the new certificate
	err = certs.Reload(context.Background())
	fmt.Println(errors.Is(err, certmanager.ErrMismatch), certs.Status().Generation)
	// Output: true 1
}

func Example_ticketKeys() {
	// Keys that every machine has, from where your secrets are.
	today, yesterday := [32]byte{1}, [32]byte{2}
	ca := newCA()
	options := certmanager.Options{
		TicketKeys: [][32]byte{today, yesterday}, // the first encrypts, all decrypt
	}
	one, other := manager(ca, options), manager(ca, options)
	defer one.Close()
	defer other.Close()

	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, machine := range []*certmanager.Manager{one, other} {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", machine.ServerTLS())
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			if conn, err := listener.Accept(); err == nil {
				conn.Write([]byte("hello")) // a ticket comes with it
				conn.Close()
			}
		}()
		conn, err := tls.Dial("tcp", listener.Addr().String(), client)
		if err != nil {
			log.Fatal(err)
		}
		conn.Read(make([]byte, 5))
		fmt.Println("resumed:", conn.ConnectionState().DidResume)
		conn.Close()
		listener.Close()
	}
	if err := one.SetTicketKeys([][32]byte{{3}, today}); err != nil { // tomorrow, on every machine
		log.Fatal(err)
	}
	// Output:
	// resumed: false
	// resumed: true
}
