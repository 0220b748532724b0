package meta

import (
	"errors"
	"fmt"
	"time"
)

// check collects what is wrong with options, so that one error names all of it.
type check struct{ errs []error }

func (c *check) refuse(wrong bool, format string, args ...any) {
	if wrong {
		c.errs = append(c.errs, fmt.Errorf("%w: "+format, append([]any{ErrOption}, args...)...))
	}
}

// notNegative takes an int or a time.Duration.
func (c *check) notNegative(option string, value any) {
	switch v := value.(type) {
	case int:
		c.refuse(v < 0, "%s: is %d; use 0 for the default, or a positive number", option, v)
	case time.Duration:
		c.refuse(v < 0, "%s: is %s; use 0 for the default, or a positive duration", option, v)
	}
}

func (c *check) err() error { return errors.Join(c.errs...) }
