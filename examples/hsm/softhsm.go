//go:build cgo

package main

import (
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ThalesGroup/crypto11"
)

// softHSM is a token of SoftHSM 2, a PKCS #11 library that keeps its tokens in files.
type softHSM struct {
	*token
	folder string // of tokens
}

// newSoftHSM makes an empty token in a folder.
func newSoftHSM(dir string) (*softHSM, error) {
	module := ""
	for _, pattern := range []string{"/usr/lib*/softhsm", "/usr/lib/*/softhsm", "/usr/local/lib/softhsm", "/opt/homebrew/lib/softhsm"} {
		if found, _ := filepath.Glob(filepath.Join(pattern, "libsofthsm2.so")); module == "" && found != nil {
			module = found[0]
		}
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil || module == "" {
		return nil, errors.New("SoftHSM 2 is not installed: apt-get install softhsm2, or brew install softhsm")
	}
	s := &softHSM{folder: filepath.Join(dir, "tokens"), token: &token{config: crypto11.Config{Path: module, TokenLabel: "example", Pin: "1234"}}}
	config := filepath.Join(dir, "softhsm2.conf")
	err = errors.Join(
		os.Mkdir(s.folder, 0o700),
		os.WriteFile(config, []byte("directories.tokendir = "+s.folder+"\nlog.level = ERROR\n"), 0o600),
		os.Setenv("SOFTHSM2_CONF", config))
	if err != nil {
		return nil, err
	}
	output, err := exec.Command(util, "--init-token", "--free", "--label", s.config.TokenLabel, "--pin", s.config.Pin, "--so-pin", "5678").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("softhsm2-util: %w\n%s", err, output)
	}
	return s, nil
}

// newKey makes a key in the token and returns its public key.
func (s *softHSM) newKey(label string) (crypto.PublicKey, error) {
	open, err := s.context(nil)
	if err != nil {
		return nil, err
	}
	signer, err := open.GenerateECDSAKeyPairWithLabel([]byte(label), []byte(label), elliptic.P256())
	if err != nil {
		return nil, err
	}
	return signer.Public(), nil
}

// remove takes the token out, insert puts it back.
func (s *softHSM) remove() error { return os.Rename(s.folder, s.folder+" away") }

func (s *softHSM) insert() error { return os.Rename(s.folder+" away", s.folder) }
