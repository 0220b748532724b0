package meta

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// scratchSize is the size in bytes of the buffers that connections read into: that of the largest
// TLS record.
const scratchSize = 16 << 10

// scratches are these buffers. A connection holds one only while it contains data.
var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// inbox holds what was read and not yet delivered. Only the read loop uses it.
type inbox struct {
	opt        *TCPConnectionOptions
	buf        []byte // nil: none is held
	scratch    *[scratchSize]byte
	start, end int   // of the data in buf
	err        error // of the last read; delivered after the data in buf
	atEOF      bool  // Split was told that no more comes
	final      bool  // Split has given its last token
	pooled     int   // capacity of the buffers in the user's pool; set before Start
}

func (b *inbox) init(opt *TCPConnectionOptions) {
	b.opt = opt
	if opt.BufferPool != nil {
		buf := opt.poolBuffer()
		b.pooled = cap(buf)
		b.recycle(buf)
	}
}

// empty reports whether nothing waits to be delivered.
func (b *inbox) empty() bool { return b.start == b.end }

func (b *inbox) full() bool { return !b.empty() && b.end == len(b.buf) }

// space returns the free part of the buffer. It must not be called when the buffer is full.
func (b *inbox) space() []byte {
	if b.empty() {
		b.start, b.end = 0, 0
	}
	switch {
	case b.buf != nil:
	case b.opt.BufferPool != nil:
		buf := b.opt.poolBuffer()
		b.buf = buf[:min(cap(buf), b.opt.BufferSize)]
	default:
		b.scratch = scratches.Get().(*[scratchSize]byte)
		b.buf = b.scratch[:]
		if b.opt.Split == nil {
			b.buf = b.buf[:min(scratchSize, b.opt.BufferSize)]
		}
	}
	return b.buf[b.end:]
}

// next returns the next message, nil if there is none yet, or the reason why there will be none.
func (b *inbox) next() (data []byte, reason, cause error) {
	switch {
	case b.opt.Split != nil:
		return b.nextFrame()
	case b.empty():
		return nil, nil, nil
	case b.opt.BufferPool != nil, b.end > scratchSize/2:
		data = b.buf[:b.end]
		b.buf, b.scratch = nil, nil // the receiver gets the buffer: copying that much costs more than a new buffer
	default:
		data = bytes.Clone(b.buf[:b.end])
	}
	b.end = 0
	return data, nil, nil
}

// nextFrame calls Split as bufio.Scanner does, but does not rely on it to make progress. atEOF is
// true only after an orderly end: the rest of a broken connection is not a frame.
func (b *inbox) nextFrame() (data []byte, reason, cause error) {
	if b.final {
		return nil, ErrTerminated, bufio.ErrFinalToken
	}
	for !b.empty() || b.err == io.EOF && !b.atEOF {
		if b.empty() {
			b.atEOF = true // Split may be called without data only at EOF
		}
		rest := b.buf[b.start:b.end]
		rest = rest[:min(len(rest), b.opt.MaxFrame)] // so that the result does not depend on how much has arrived
		atEOF := b.atEOF && b.start+len(rest) == b.end
		advance, token, err := b.opt.Split(rest, atEOF)
		switch {
		case err == bufio.ErrFinalToken:
			b.final, b.start, b.end = true, 0, 0
			if token != nil {
				return bytes.Clone(token), nil, nil
			}
			return nil, ErrTerminated, err
		case errors.Is(err, ErrFrameTooLarge):
			return nil, ErrFrameTooLarge, err
		case err != nil:
			return nil, ErrFraming, err
		case advance < 0:
			return nil, ErrFraming, bufio.ErrNegativeAdvance
		case advance > len(rest):
			return nil, ErrFraming, bufio.ErrAdvanceTooFar
		case advance == 0 && token == nil && len(rest) == b.opt.MaxFrame:
			return nil, ErrFrameTooLarge, fmt.Errorf("over %d bytes (MaxFrame)", b.opt.MaxFrame)
		case advance == 0 && token != nil && !atEOF:
			return nil, ErrFraming, io.ErrNoProgress
		case advance == 0 && token == nil && b.err == nil:
			b.makeRoom()
			return nil, nil, nil
		case advance == 0 && token == nil && b.err == io.EOF && !b.atEOF:
			b.atEOF = true
			continue
		case advance == 0 && token == nil && b.err == io.EOF && !b.empty():
			return nil, ErrFraming, io.ErrUnexpectedEOF
		case advance == 0 && token == nil:
			b.start, b.end = 0, 0 // drop the cut-off frame; err is the reason
			return nil, nil, nil
		}
		b.start += advance
		if advance == 0 {
			b.start = b.end // the final token made no progress
		}
		if token != nil {
			return bytes.Clone(token), nil, nil
		}
	}
	b.start, b.end = 0, 0
	return nil, nil, nil
}

// makeRoom moves the data to the front of the buffer, or into a larger one if the buffer is full.
func (b *inbox) makeRoom() {
	if b.start > 0 {
		b.end = copy(b.buf, b.buf[b.start:b.end])
		b.start = 0
	}
	if b.end == len(b.buf) {
		b.replace(make([]byte, min(2*len(b.buf), max(b.opt.MaxFrame, len(b.buf)+1))))
	}
}

// replace moves the data into another buffer.
func (b *inbox) replace(buf []byte) {
	n := copy(buf, b.buf[b.start:b.end])
	b.discard()
	b.buf, b.end = buf, n
}

// park is called before a wait. It releases an empty buffer, and keeps the beginning of a frame in
// no more memory than needed.
func (b *inbox) park() {
	switch held := b.end - b.start; {
	case held == 0:
		b.discard()
	case 4*held <= len(b.buf) && b.opt.BufferPool == nil:
		b.replace(make([]byte, 2*held))
	}
}

// discard releases the buffer.
func (b *inbox) discard() {
	if b.scratch != nil {
		scratches.Put(b.scratch)
	} else if b.opt.BufferPool != nil {
		b.recycle(b.buf)
	}
	b.buf, b.scratch, b.start, b.end = nil, nil, 0, 0
}

// poolBuffer gets a buffer from the user's pool.
func (o *TCPConnectionOptions) poolBuffer() []byte {
	buf, _ := o.BufferPool.Get().([]byte)
	if cap(buf) == 0 {
		buf = make([]byte, o.BufferSize)
	}
	return buf
}

// recycle reuses the memory of a message as a read buffer if it has the size of one. It may be
// called from any goroutine.
func (b *inbox) recycle(buf []byte) {
	switch {
	case b.opt.BufferPool == nil && cap(buf) == scratchSize:
		scratches.Put((*[scratchSize]byte)(buf[:scratchSize]))
	case b.opt.BufferPool != nil && cap(buf) == b.pooled:
		//lint:ignore SA6002 the values of the user's pool are []byte, as Ergo documents it
		b.opt.BufferPool.Put(buf[:cap(buf)])
	}
}
