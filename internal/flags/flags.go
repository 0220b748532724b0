// Package flags has the command line flags that several examples share.
package flags

import (
	"flag"
	"fmt"
	"strconv"
)

// Port defines the command line flag -port. A value that is no port number ends the program with a
// message.
func Port(standard uint16) *uint16 {
	return portOf(flag.CommandLine, standard)
}

func portOf(set *flag.FlagSet, standard uint16) *uint16 {
	port := standard
	set.Func("port", fmt.Sprintf("`port` to listen on (default %d)", standard), func(text string) error {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("a port is a number from 0 to 65535")
		}
		port = uint16(n)
		return nil
	})
	return &port
}
