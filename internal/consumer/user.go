package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// user is somebody who knows the module proxy, and nothing of this repository.
type user struct {
	home string // where the projects are
	env  []string
}

// newUser makes a user to whom the proxies, which are folders, come before the real one.
func newUser(home string, proxies ...string) (*user, error) {
	output, err := exec.Command("go", "env", "GOPROXY", "GOMODCACHE").Output()
	if err != nil {
		return nil, err
	}
	env := strings.Fields(string(output))
	// What was downloaded before need not be again.
	proxies = append(proxies, filepath.Join(env[1], "cache", "download"))
	chain := ""
	for _, folder := range proxies {
		chain += "file://" + filepath.ToSlash(folder) + ","
	}
	return &user{home: home, env: append(os.Environ(), "GOWORK=off", "GOFLAGS=-modcacherw", "GOPROXY="+chain+env[0],
		"GONOSUMDB="+root+","+ergo, "GOMODCACHE="+filepath.Join(home, "cache"), "GOBIN="+filepath.Join(home, "bin"))}, nil
}

// stage runs a step with an empty folder and prints its result.
func (u *user) stage(name string, project func(dir string) error) error {
	dir := filepath.Join(u.home, strings.NewReplacer(" ", "-", "/", "", "'", "").Replace(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	start := time.Now()
	if err := project(dir); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("ok   %s (%.1fs)\n", name, time.Since(start).Seconds())
	return nil
}

// do runs commands, one a line, in a folder.
func (u *user) do(dir, commands string) error {
	for line := range strings.Lines(commands) {
		words := strings.Fields(line)
		command := exec.Command(words[0], words[1:]...)
		command.Dir, command.Env = dir, u.env
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.TrimSpace(line), err, output)
		}
	}
	return nil
}

// talk runs the program echo of a folder and says hello to it.
func talk(dir string) error {
	root, err := os.ReadFile(filepath.Join(dir, "certs", "root.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	const addr = "localhost:4433"
	free, err := net.Listen("tcp", ":4433")
	if err != nil {
		return fmt.Errorf("the port of README's program is taken: %w", err)
	}
	free.Close()
	program := exec.Command(filepath.Join(dir, "echo"))
	program.Dir, program.Stderr = dir, os.Stderr
	if err := program.Start(); err != nil {
		return err
	}
	defer program.Wait()
	defer program.Process.Kill()
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots})
		if err != nil && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond) // it is not listening yet
			continue
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(deadline)
		got := make([]byte, 5)
		_, err = conn.Write([]byte("hello"))
		if _, readErr := io.ReadFull(conn, got); err != nil || readErr != nil || string(got) != "hello" {
			return fmt.Errorf("README's program answers %q: %w", got, errors.Join(err, readErr))
		}
		return nil
	}
}
