package meta

import (
	"fmt"
	"time"

	"ergo.services/ergo/gen"
)

// ownerCheck is how often a connection whose option Node is set looks whether its owner is still
// there.
const ownerCheck = time.Second

// findOwner looks up the process that has the name to which the messages would go, where the option
// Node is set: from then on they go to that process, and not to another that takes its name later
// and knows nothing of the connection.
func (c *tcpConnection) findOwner() error {
	name, named := c.to.(gen.Atom)
	if !named || c.opt.Node == nil {
		return nil
	}
	known, err := gen.PID{}, error(nil)
	if c.server != nil {
		known = c.server.owner(name)
	}
	if info, gone := c.opt.Node.ProcessInfo(known); gone != nil || info.Name != name {
		if known, err = lookUp(c.opt.Node, name); err != nil {
			return fmt.Errorf("%w: no process has the name %s: %w", ErrOwnerGone, name, err)
		}
	}
	if c.server != nil {
		c.server.setOwner(name, known)
	}
	c.to, c.ownerAt = known, time.Now().Add(ownerCheck)
	return nil
}

// lookUp finds a process by its name.
func lookUp(node gen.Node, name gen.Atom) (gen.PID, error) {
	all, err := node.ProcessList()
	if err != nil {
		return gen.PID{}, err
	}
	for _, pid := range all {
		if info, err := node.ProcessInfo(pid); err == nil && info.Name == name {
			return pid, nil
		}
	}
	return gen.PID{}, gen.ErrNameUnknown
}

// checkOwner ends the connection if its owner is no more.
func (c *tcpConnection) checkOwner(now time.Time) {
	c.ownerAt = now.Add(ownerCheck)
	if pid, ok := c.to.(gen.PID); ok {
		if _, err := c.opt.Node.ProcessState(pid); err != nil {
			c.end(ErrOwnerGone, fmt.Errorf("%v: %w", pid, err))
		}
	}
}

// owner gives the process that had the name last, and setOwner notes it.
func (s *tcpServer) owner(name gen.Atom) gen.PID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[name]
}

func (s *tcpServer) setOwner(name gen.Atom, pid gen.PID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners == nil {
		s.owners = map[gen.Atom]gen.PID{}
	}
	s.owners[name] = pid
}
