package main

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestDemonstration(t *testing.T) {
	defer goleak.VerifyNone(t)
	start := time.Now()
	if err := demonstrate(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s, its readers were promised 10 s", took)
	}
}
