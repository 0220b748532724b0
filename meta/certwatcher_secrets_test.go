package meta_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// printed gives the forms in which the private key of a PEM file could be printed.
func printed(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return forms(key.(*ecdsa.PrivateKey))
}

// forms are those in which a private key could be printed.
func forms(key *ecdsa.PrivateKey) []string {
	secret, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	forms := []string{
		"PRIVATE KEY-----", string(secret), hex.EncodeToString(secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint(secret), "[]"),
		new(big.Int).SetBytes(secret).String(),
	}
	for i := range 3 { // base64 of what the key is in the middle of
		forms = append(forms, base64.StdEncoding.EncodeToString(secret[i:i+(len(secret)-i)/3*3]))
	}
	return forms
}

// said is what nodes, servers, connections and managers said in all tests of this package: log
// lines, messages to actors, inspect values. No key that the harness made is to be in it.
var said suite

type suite struct {
	logBuffer
	keys sync.Map // *ecdsa.PrivateKey
}

func (s *suite) key(pair tls.Certificate) {
	s.keys.Store(pair.PrivateKey.(*ecdsa.PrivateKey), nil)
}

// check returns the exit code of the tests.
func (s *suite) check() (code int) {
	text := s.String()
	s.keys.Range(func(key, _ any) bool {
		for _, form := range forms(key.(*ecdsa.PrivateKey)) {
			if at := strings.Index(text, form); at >= 0 {
				fmt.Printf("FAIL: a private key was printed: …%q…\n", text[max(0, at-100):at])
				code = 1
			}
		}
		return true
	})
	return code
}

// Whatever a server, its connections and a watcher say, to the log, to an inspector, to their actor
// and to a caller, has no key in it, also where a key is what is wrong.
func TestNoKeyIsPrinted(t *testing.T) {
	p := newPKI(t, true)
	told := new(logBuffer)
	manager, err := certmanager.New(certmanager.Options{
		Logger: slog.New(slog.NewTextHandler(told, nil)),
		Source: certmanager.Files{Cert: p.file("server.crt"), Key: p.file("server.key"), ClientCAs: p.file("root.crt")},
	})
	require.NoError(t, err)
	defer manager.Close()
	say := func(what ...any) { fmt.Fprintf(told, "%+v\n", what) }
	a := newHost(t).spawn(func(_ *owner, message any) bool {
		say(message)
		return false
	})
	watcher := a.watch(meta.CreateCertWatcher(manager, meta.CertWatcherOptions{}))
	server, addr := a.listen(meta.TCPServerOptions{CertManager: manager})
	dial := func(name string) *tls.Conn {
		cert, err := tls.LoadX509KeyPair(p.file(name+".crt"), p.file(name+".key"))
		require.NoError(t, err)
		return tls.Client(dialTCP(t, addr), &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }})
	}
	require.NoError(t, dial("client").Handshake())
	for {
		message := <-a.mail
		if connected, ok := message.(meta.MessageTCPConnect); ok {
			say(a.inspect(connected.ID))
			break
		}
	}
	stranger := dial("stranger")
	require.NoError(t, stranger.Handshake()) // TLS 1.3: the refusal comes with the first read
	_, err = stranger.Read(make([]byte, 1))
	require.Error(t, err)
	say(err)
	eventually(t, func() bool { return strings.Contains(told.String(), "event=peer-refused") }, "the refusal is reported")

	good, err := os.ReadFile(p.file("server.key"))
	require.NoError(t, err)
	secrets := printed(t, p.file("server.key"))
	for _, name := range []string{"client", "stranger"} {
		secrets = append(secrets, printed(t, p.file(name+".key"))...)
	}
	tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Files(t, p.dir, "other")
	secrets = append(secrets, printed(t, p.file("other.key"))...)
	other, err := os.ReadFile(p.file("other.key"))
	require.NoError(t, err)
	block, _ := pem.Decode(good)
	block.Bytes = block.Bytes[:len(block.Bytes)-1]
	for _, bad := range [][]byte{other, good[:len(good)-40], pem.EncodeToMemory(block), append([]byte("x"), good...)} {
		require.NoError(t, os.WriteFile(p.file("server.key"), bad, 0o600))
		say(a.call(watcher, meta.MessageCertReload{}))
	}
	say(a.call(watcher, meta.MessageCertStatus{}), a.inspect(watcher), a.inspect(server), a.h.log)

	text := told.String()
	for _, part := range []string{"handshake failures", "peer-refused", "CN=client", "does not match", "cut off", "cannot be parsed"} {
		assert.Contains(t, text, part, "this was to be said")
	}
	for _, form := range secrets {
		assert.NotContains(t, text, form)
	}
}
