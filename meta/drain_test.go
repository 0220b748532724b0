package meta

import (
	"ergo.services/ergo/gen"
)

// teller is a meta process that keeps what it is to send.
type teller struct {
	gen.MetaProcess
	sent []any
	told chan struct{} // nil, or one for each of sent
}

func (p *teller) ID() gen.Alias   { return gen.Alias{ID: [3]uint64{1}} }
func (p *teller) Parent() gen.PID { return gen.PID{ID: 1} }
func (p *teller) Send(_ any, message any) error {
	p.sent = append(p.sent, message)
	if p.told != nil {
		p.told <- struct{}{}
	}
	return nil
}
func (p *teller) Log() gen.Log { return quietLog{} }

// quietLog writes nothing.
type quietLog struct{ gen.Log }

func (quietLog) Level() gen.LogLevel       { return gen.LogLevelDisabled }
func (quietLog) Warning(string, ...any)    {}
func (quietLog) AddFields(...gen.LogField) {}
