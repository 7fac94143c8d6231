package binary

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

// Line is one line of the binary's log.
type Line map[string]any

// logReader stores what the process prints. os/exec writes to it.
type logReader struct {
	mu      sync.Mutex
	text    bytes.Buffer
	read    int // bytes of text that are parsed, in whole lines
	lines   []Line
	strange error         // the first line that is not JSON
	changed chan struct{} // closed and replaced with every line
}

func newLogReader() *logReader { return &logReader{changed: make(chan struct{})} }

func (l *logReader) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := l.text.Write(p) // into memory
	for {
		rest := l.text.Bytes()[l.read:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return n, nil
		}
		var line Line
		if err := json.Unmarshal(rest[:end], &line); err == nil {
			l.lines = append(l.lines, line)
		} else if l.strange == nil {
			l.strange = fmt.Errorf("the proxy printed a line that is not JSON: %q: %w", rest[:end], err)
		}
		l.read += end + 1
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Printed returns everything that the process has printed.
func (p *Process) Printed() string {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.text.String()
}

// Log returns the log lines so far. The error says if a line is not JSON.
func (p *Process) Log() ([]Line, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.lines[:len(p.log.lines):len(p.log.lines)], p.log.strange
}

// Clean returns an error unless the process printed only log lines, and no secret.
func (p *Process) Clean(secrets ...string) error {
	_, err := p.Log()
	for _, secret := range secrets {
		if strings.Contains(p.Printed(), secret) {
			err = errors.Join(err, fmt.Errorf("the log contains %q, which must never be printed", secret))
		}
	}
	return err
}

// Wait waits for a line.
func (p *Process) Wait(ctx context.Context, what string, match func(Line) bool) (Line, error) {
	seen, gone := 0, false
	for {
		p.log.mu.Lock()
		lines, changed := p.log.lines, p.log.changed
		p.log.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if match(lines[seen]) {
				return lines[seen], nil
			}
		}
		if gone {
			return nil, fmt.Errorf("the proxy ended (%v) without a log line %s", p.cmd.ProcessState, what)
		}
		select {
		case <-changed:
		case <-p.Done:
			gone = true // check once more
		case <-ctx.Done():
			return nil, fmt.Errorf("no log line %s: %w", what, ctx.Err())
		}
	}
}

// Lines returns the log lines so far.
func (p *Process) Lines(t *testing.T) []Line {
	t.Helper()
	lines, err := p.Log()
	assert.NilError(t, err)
	return lines
}

// Finished waits for the line that is logged when a request ends. It finds the line by the x-proxy-request-id.
func (p *Process) Finished(t *testing.T, requestID string) Line {
	t.Helper()
	assert.Assert(t, requestID != "", "the proxy's answer has no x-proxy-request-id")
	return p.Line(t, "about the finished request "+requestID, func(line Line) bool {
		// Retries are logged with the same id, but without an outcome.
		return line["request_id"] == requestID && line["outcome"] != nil
	})
}

// Line waits for a line, because it may be written after the client has its answer.
func (p *Process) Line(t *testing.T, what string, match func(Line) bool) Line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	line, err := p.Wait(ctx, what, match)
	assert.NilError(t, err)
	return line
}
