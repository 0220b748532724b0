package interop

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var write = flag.Bool("write", false, "write what was measured to docs/interop.md")

func TestMain(m *testing.M) {
	flag.Parse()
	if *write && (flag.Lookup("test.run").Value.String() != "" || testing.Short()) {
		fmt.Fprintln(os.Stderr, "-write needs all tests: leave -run and -short out")
		os.Exit(2)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "interop")
	if err == nil {
		defer os.RemoveAll(dir)
		err = certs.make(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
		err = goleak.Find(goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	}
	if code == 0 && err == nil && *write {
		err = os.WriteFile("../docs/interop.md", measured.document(), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
