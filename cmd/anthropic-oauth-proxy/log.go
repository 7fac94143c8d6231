package main

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// asyncLog writes log lines in its own goroutine, so that no request waits for the log's reader. If nobody reads, lines are
// dropped, and their number is logged when somebody reads again (contract section 8).
type asyncLog struct {
	w       io.Writer
	queue   chan []byte
	bytes   atomic.Int64 // in the queue
	dropped atomic.Int64
	logger  *slog.Logger  // writes to the queue
	direct  *slog.Logger  // writes to w
	written chan struct{} // closed after the last line
}

const (
	// Limits of the queue. A line has about 400 bytes, or a few KiB if its path is long.
	maxUnwritten      = 4096 // lines
	maxUnwrittenBytes = 4 << 20

	closeWait = time.Second // how long exit waits for the last lines
)

// newAsyncLog returns a log that writes JSON, or readable text if w is a terminal.
func newAsyncLog(w io.Writer, level slog.Level) *asyncLog {
	l := &asyncLog{w: w, queue: make(chan []byte, maxUnwritten), written: make(chan struct{})}
	options := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		l.logger, l.direct = slog.New(slog.NewTextHandler(l, options)), slog.New(slog.NewTextHandler(w, options))
	} else {
		l.logger, l.direct = slog.New(slog.NewJSONHandler(l, options)), slog.New(slog.NewJSONHandler(w, options))
	}
	go l.run()
	return l
}

// Write queues a copy of p, which is one line. It never waits and never returns an error: nobody could read it.
func (l *asyncLog) Write(p []byte) (int, error) {
	if l.bytes.Add(int64(len(p))) <= maxUnwrittenBytes {
		select {
		case l.queue <- append([]byte(nil), p...):
			return len(p), nil
		default:
		}
	}
	l.bytes.Add(-int64(len(p)))
	l.dropped.Add(1)
	return len(p), nil
}

func (l *asyncLog) run() {
	defer close(l.written)
	for line := range l.queue {
		if line == nil {
			return // Close
		}
		_, err := l.w.Write(line)
		l.bytes.Add(-int64(len(line)))
		if err != nil { // the reader is gone
			l.dropped.Add(1)
		} else if n := l.dropped.Swap(0); n > 0 {
			l.direct.Warn("log lines were lost: nobody read them", "lines", n) // directly, because the queue may be full
		}
	}
}

// Close waits until all lines are written, or until the given time has passed.
func (l *asyncLog) Close(wait time.Duration) {
	timeout := time.After(wait)
	select {
	case l.queue <- nil:
	case <-timeout:
		return
	}
	select {
	case <-l.written:
	case <-timeout:
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&fs.ModeCharDevice != 0
}

// printNextSteps tells a person at a terminal how to use the proxy.
func (l *asyncLog) printNextSteps(addr net.Addr) {
	if !isTerminal(l.w) {
		return
	}
	host := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = fmt.Sprint("127.0.0.1:", tcp.Port)
	}
	fmt.Fprintf(l, "\nTo use it, in another terminal: export ANTHROPIC_BASE_URL=http://%s\n"+
		"Ctrl-C lets running answers finish, a second Ctrl-C exits at once.\n\n", host)
}

// stdlibLog receives what net/http prints through the global logger. Such a text may quote bytes of the upstream, so only the
// part before the quote is logged.
type stdlibLog struct{ logger *slog.Logger }

func (l stdlibLog) Write(p []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(p)), " starting with ")
	if !strings.HasPrefix(text, "Unsolicited response received on idle HTTP channel") {
		text = "net/http logged a message; it is not shown here because it may quote request or response bytes"
	}
	l.logger.Warn(text)
	return len(p), nil
}
