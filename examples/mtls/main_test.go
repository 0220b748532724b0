package main

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestDemonstration(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	start := time.Now()
	if err := demonstrate(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s, its readers were promised 10 s", took)
	}
}
