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

// lines writes the log from a goroutine of its own, so that no request ever waits for whoever reads it. When nobody does, lines
// are dropped, and their number is told as soon as somebody reads again (contract section 8).
type lines struct {
	w       io.Writer
	queue   chan []byte
	bytes   atomic.Int64 // in queue
	dropped atomic.Int64
	logger  *slog.Logger  // writes into the queue
	direct  *slog.Logger  // writes to w
	written chan struct{} // closed after the last line
}

const (
	// How much waits for its reader. A line is some 400 bytes, but its path may have 64 KiB.
	maxUnwritten      = 4096 // lines
	maxUnwrittenBytes = 4 << 20

	closeWait = time.Second // for the last lines, at the end
)

// newLines returns a log of JSON lines, or of lines for people if w is a terminal.
func newLines(w io.Writer, level slog.Level) *lines {
	l := &lines{w: w, queue: make(chan []byte, maxUnwritten), written: make(chan struct{})}
	options := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		l.logger, l.direct = slog.New(slog.NewTextHandler(l, options)), slog.New(slog.NewTextHandler(w, options))
	} else {
		l.logger, l.direct = slog.New(slog.NewJSONHandler(l, options)), slog.New(slog.NewJSONHandler(w, options))
	}
	go l.run()
	return l
}

// Write takes p, which is one line, and keeps a copy. It never waits, and reports no error: there is nowhere to tell.
func (l *lines) Write(p []byte) (int, error) {
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

func (l *lines) run() {
	defer close(l.written)
	for line := range l.queue {
		if line == nil {
			return // Close
		}
		_, err := l.w.Write(line)
		l.bytes.Add(-int64(len(line)))
		if err != nil { // its reader is gone
			l.dropped.Add(1)
		} else if n := l.dropped.Swap(0); n > 0 {
			l.direct.Warn("log lines were lost: nobody read them", "lines", n) // the queue may be full
		}
	}
}

// Close returns when everything is written, or cannot be within the given time.
func (l *lines) Close(wait time.Duration) {
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

// greet tells a person at a terminal the one thing to do next.
func (l *lines) greet(addr net.Addr) {
	if !isTerminal(l.w) {
		return
	}
	host := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = fmt.Sprint("127.0.0.1:", tcp.Port)
	}
	fmt.Fprintf(l, "\nTo use it, in another terminal: export ANTHROPIC_BASE_URL=http://%s\n"+
		"Ctrl-C lets running answers finish, a second one ends at once.\n\n", host)
}

// stdlibLog receives what net/http prints through the global logger. Some of it quotes bytes that an upstream sent, so
// only its beginning, up to the first quoted byte, is passed on.
type stdlibLog struct{ logger *slog.Logger }

func (l stdlibLog) Write(p []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(p)), " starting with ")
	if !strings.HasPrefix(text, "Unsolicited response received on idle HTTP channel") {
		text = "net/http had something to say that may quote a message; it is withheld"
	}
	l.logger.Warn(text)
	return len(p), nil
}
