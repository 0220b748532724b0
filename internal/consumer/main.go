// Consumer installs this repository's modules as their users do, before they are released: it packs
// each into a file:// module proxy, in front of the real one, with engine/ under Ergo's name, and
// then is a user with an empty folder and an empty module cache.
//
//	go run .
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	root    = "github.com/ergotls/ergotls"
	engine  = root + "/engine"
	ergo    = "ergo.services/ergo"
	release = "v0.1.0"
)

func main() {
	log.SetFlags(0)
	tmp, err := os.MkdirTemp("", "consumer")
	if err != nil {
		log.Fatal(err)
	}
	err = run(tmp)
	if err := errors.Join(err, os.RemoveAll(tmp)); err != nil {
		log.Fatal("consumer: ", err)
	}
}

func run(tmp string) error {
	repository, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	modules, err := readWork(repository)
	if err != nil {
		return err
	}
	ours, ergos := filepath.Join(tmp, "proxy"), filepath.Join(tmp, "ergo")
	for _, m := range modules {
		fmt.Println("pack", m)
		proxy := ours
		if m.Path == ergo {
			proxy = ergos
		}
		if err := m.publish(proxy); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		return err
	}
	readme := string(text)
	u, err := newUser(filepath.Join(tmp, "user"), ours, ergos)
	if err != nil {
		return err
	}
	without, err := newUser(filepath.Join(tmp, "without"), ours) // the proxy refuses Ergo
	if err != nil {
		return err
	}
	return errors.Join(
		u.stage("README's program", func(dir string) error { return u.echo(dir, readme) }),
		without.stage("README's program on engine/", func(dir string) error { return without.embedded(dir, readme) }),
		u.stage("go install of the demo", u.demo),
		without.stage("certificates for net/http", without.web),
		u.stage("the nested modules", func(dir string) error { return u.nested(dir, modules) }),
	)
}

// echo builds README's program word for word, makes the certificates for it and talks to it.
func (u *user) echo(dir, readme string) error {
	if err := writeProgram(dir, readme); err != nil {
		return err
	}
	if err := u.do(dir, `go mod init example.com/echo
		go get `+root+`@`+release+`
		go mod tidy
		go vet .
		go build -o echo .
		go run `+root+`/tlstest/cmd/devcerts@latest`); err != nil {
		return err
	}
	return talk(dir)
}

// embedded builds it where the module proxy does not serve Ergo.
func (u *user) embedded(dir, readme string) error {
	if err := writeProgram(dir, readme); err != nil {
		return err
	}
	line := "go mod edit -replace=" + ergo + "=" + engine + "@" + release
	if !strings.Contains(readme, line) {
		return fmt.Errorf("README.md does not say: %s", line)
	}
	return u.do(dir, `go mod init example.com/echo
		`+line+`
		go get `+root+`@`+release+`
		go mod tidy
		go build .`)
}

func writeProgram(dir, readme string) error {
	found := regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$").FindStringSubmatch(readme)
	if found == nil {
		return errors.New("README.md shows no program: a snippet of Go that starts with package main")
	}
	return os.WriteFile(filepath.Join(dir, "main.go"), []byte(found[1]), 0o644)
}

func (u *user) demo(dir string) error {
	if err := u.do(dir, "go install "+root+"/examples/mtls@"+release); err != nil {
		return err
	}
	output, err := exec.Command(filepath.Join(u.home, "bin", "mtls")).CombinedOutput()
	if err != nil || !bytes.HasSuffix(output, []byte("All steps held.\n")) {
		return fmt.Errorf("mtls: %v\n%s", err, output)
	}
	return nil
}

// web is a program with certificates and without actors: its module does not come to know Ergo.
func (u *user) web(dir string) error {
	const text = `package main

import (
	"log"
	"net/http"

	"github.com/ergotls/ergotls/certmanager"
)

func main() {
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: "server.crt", Key: "server.key"}})
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{TLSConfig: certs.ServerTLS(), ConnState: certs.ConnState}
	log.Fatal(server.ListenAndServeTLS("", ""))
}
`
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := u.do(dir, `go mod init example.com/web
		go get `+root+`@`+release+`
		go mod tidy
		go build .`); err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(text, []byte(ergo)) {
			return fmt.Errorf("%s names %s, which certmanager does without: %v\n%s", name, ergo, err, text)
		}
	}
	return nil
}

// nested gets each nested module by itself, and builds its packages.
func (u *user) nested(dir string, modules []published) error {
	for i, m := range modules {
		if m.Path == root || m.Path == ergo || m.Path == engine {
			continue
		}
		folder := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
		if err := u.do(folder, `go mod init example.com/nested
			go get `+m.String()+`
			go get `+m.Path+`/...@`+m.Version.Version+`
			go build `+m.Path+`/...`); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	return nil
}
