package main

import (
	"io"
	"sync"
	"time"
)

// lines writes the log from a goroutine of its own, at most every writeEvery: a request does not wait for whoever reads the
// log, and under load many lines are one write, which is a seventh of the CPU of a small request (docs/performance.md). A
// line that comes alone is written at once. Nothing is lost: Write waits while maxUnwritten bytes are not written yet, and
// Close until all are.
type lines struct {
	w    io.Writer
	mu   sync.Mutex
	cond sync.Cond // for every change of what follows
	buf  []byte    // not yet written
	busy bool      // a write is under way
	over bool      // Close has done its part
}

const (
	writeEvery   = 20 * time.Millisecond
	maxUnwritten = 1 << 20 // some thousand lines
	closeWait    = time.Second
)

func newLines(w io.Writer) *lines {
	l := &lines{w: w}
	l.cond.L = &l.mu
	go l.run()
	return l
}

// Write takes p, which is one or more whole lines. It reports no error: there is nowhere to tell.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.buf) > maxUnwritten && !l.over {
		l.cond.Wait()
	}
	if l.over {
		return l.w.Write(p)
	}
	l.buf = append(l.buf, p...)
	l.cond.Broadcast()
	return len(p), nil
}

func (l *lines) run() {
	var spare []byte
	var last time.Time
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.over {
		if len(l.buf) == 0 {
			l.cond.Wait()
			continue
		}
		if wait := writeEvery - time.Since(last); wait > 0 {
			l.mu.Unlock()
			time.Sleep(wait)
			l.mu.Lock()
		}
		buf := l.buf
		l.buf, l.busy = spare[:0], true
		l.mu.Unlock()
		l.w.Write(buf)
		last = time.Now()
		l.mu.Lock()
		spare, l.busy = buf, false
		l.cond.Broadcast()
	}
}

// Close returns when everything is written, or cannot be within closeWait. What comes later is written at once.
func (l *lines) Close() {
	stuck := time.AfterFunc(closeWait, l.end)
	defer stuck.Stop()
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.buf) > 0 || l.busy) && !l.over {
		l.cond.Wait()
	}
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.cond.Broadcast()
}
