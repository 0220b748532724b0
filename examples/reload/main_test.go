package main

import (
	"testing"

	"go.uber.org/goleak"
)

func TestDemonstration(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	if err := demonstrate(); err != nil {
		t.Fatal(err)
	}
}
