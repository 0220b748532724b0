package meta

import (
	"errors"
	"fmt"
	"time"

	"ergo.services/ergo/gen"
)

// ownerCheck is how often a connection with the option Node checks that its owner still runs.
const ownerCheck = time.Second

var (
	errActorOwns = errors.New("the connection of an ActorServer belongs to its actor")
	errNotOwner  = errors.New("it is neither the owner nor the parent")
)

// findOwner looks up the process with the name that the messages go to, if the option Node is set.
// From then on they go to that process, and not to one that takes its name later and does not know
// the connection.
func (c *tcpConnection) findOwner() error {
	name, named := c.to.(gen.Atom)
	if c.opt.Node == nil {
		return nil
	}
	if !named {
		if c.to != any(c.process.Parent()) { // the connection ends with its parent anyway
			c.ownerAt = time.Now().Add(ownerCheck)
		}
		return nil
	}
	var known gen.PID
	if c.server != nil {
		last, _ := c.server.owners.Load(name)
		known, _ = last.(gen.PID)
	}
	if info, gone := c.opt.Node.ProcessInfo(known); gone != nil || info.Name != name {
		var err error
		if known, err = lookUp(c.opt.Node, name); err != nil {
			return fmt.Errorf("%w: no process has the name %s: %w", ErrOwnerGone, name, err)
		}
	}
	if c.server != nil {
		c.server.owners.Store(name, known)
	}
	c.mu.Lock() // setOwner of a reconnecting reads it in any phase
	defer c.mu.Unlock()
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

// checkOwner ends the connection if its owner has ended.
func (c *tcpConnection) checkOwner(now time.Time) {
	c.ownerAt = now.Add(ownerCheck)
	if pid, ok := c.to.(gen.PID); ok && pid.Node == c.opt.Node.Name() {
		if _, err := c.opt.Node.ProcessState(pid); err != nil {
			c.end(ErrOwnerGone, fmt.Errorf("%v: %w", pid, err))
		}
	}
}

// owner returns the receiver of the messages.
func (c *tcpConnection) owner() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.to
}

// setOwner makes the read loop, or the end of the connection, change the owner. It does not block.
func (c *tcpConnection) setOwner(from, pid gen.PID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	owner := c.to
	if c.newOwner != (gen.PID{}) {
		owner = c.newOwner
	}
	err := c.opt.mayPass(owner, c.process.Parent(), from, pid)
	if c.server != nil && c.server.actors {
		err = errActorOwns
	}
	if err != nil {
		warnOwner(c.process, from, pid, err)
		return
	}
	if c.newOwner = pid; c.phase >= open {
		c.interruptLocked()
	}
}

func warnOwner(process gen.MetaProcess, from, pid gen.PID, err error) {
	process.Log().Warning("MessageTCPOwner{PID: %s} from %s ignored: %s", pid, from, err)
}

// mayPass returns an error if from may not make pid the owner, or if pid does not exist. An owner
// known only by name is not checked.
func (o *TCPConnectionOptions) mayPass(owner any, parent, from, pid gen.PID) error {
	if known, ok := owner.(gen.PID); ok && from != known && from != parent {
		return errNotOwner
	}
	if pid == (gen.PID{}) {
		return gen.ErrProcessUnknown
	}
	if o.Node == nil || pid.Node != o.Node.Name() {
		return nil
	}
	_, err := o.Node.ProcessState(pid)
	return err
}

// changeOwner performs the change requested by setOwner. It returns an error if the new owner can't
// be told. Start's goroutine calls it.
func (c *tcpConnection) changeOwner() error {
	c.mu.Lock()
	before, open := c.to, c.connectSent && !c.disconnectSent
	if c.newOwner != (gen.PID{}) {
		c.to, c.newOwner = c.newOwner, gen.PID{}
	}
	c.mu.Unlock()
	if before == c.to {
		return nil
	}
	if c.opt.Node != nil {
		c.ownerAt = time.Now().Add(ownerCheck)
	}
	_ = c.process.Send(before, MessageTCPOwner{PID: c.to.(gen.PID), ID: c.process.ID()}) // on error the previous owner has ended
	if !open {
		return nil
	}
	return c.process.Send(c.to, c.connect(c.tlsState()))
}
