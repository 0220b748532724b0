package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ergotls/ergotls/tlstest"
)

// makePairs makes two generations of certificate pairs and serves the first, through a symbolic
// link that is swapped.
func makePairs(c *cell, j *serverJob) (func(), error) {
	root, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	undo := func() { os.RemoveAll(root) }
	for _, generation := range []string{"0", "1"} {
		if err := c.writePairs(filepath.Join(root, generation)); err != nil {
			undo()
			return nil, err
		}
	}
	j.Dir, c.serverName = filepath.Join(root, "live"), "host0.test"
	next := 0
	c.swap = func() error {
		link := filepath.Join(root, "next")
		if err := os.Symlink(fmt.Sprint(next%2), link); err != nil {
			return err
		}
		next++
		return os.Rename(link, j.Dir)
	}
	return undo, c.swap()
}

func (c *cell) writePairs(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range c.Pairs {
		name := fmt.Sprintf("host%d", i)
		pair, err := c.ca.Generate(tlstest.Leaf{Names: []string{name + ".test"}})
		if err != nil {
			return err
		}
		if _, _, err := pair.WriteFiles(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// reload measures requests while nothing else happens, and then while one reload follows the other.
func reload(c *cell) (map[string]measure, error) {
	clients, err := c.dialAll(64, frame)
	if err != nil {
		return nil, err
	}
	operations := echoing(clients, frame, frame, false)
	without, err := c.measure(operations)
	if err != nil {
		return nil, err
	}
	with, err := c.measureWhile(operations, func() error {
		for begin := time.Now(); time.Since(begin) < c.Time; {
			if err := c.swap(); err != nil {
				return err
			}
			if _, err := c.ask(request{Do: "reload"}); err != nil {
				return err
			}
		}
		return nil
	})
	without.Mem, with.Mem = 0, 0
	return map[string]measure{noReload: without, whileReload: with}, err
}
