package binary

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// Line is one line of the binary's log.
type Line map[string]any

// logReader keeps what the process prints. os/exec writes to it.
type logReader struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func newLogReader() *logReader { return new(logReader) }

func (l *logReader) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logReader) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines returns the complete lines, and an error for one that is not JSON.
func (l *logReader) lines() ([]Line, error) {
	var lines []Line
	for text := range strings.Lines(l.String()) {
		if !strings.HasSuffix(text, "\n") {
			break // the rest is still being written
		}
		var line Line
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			return lines, fmt.Errorf("the proxy printed a line that is not JSON: %q: %w", text, err)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// check is the last look at the output of a process that is gone.
func (l *logReader) check(t *testing.T, secrets []string) {
	t.Helper()
	_, err := l.lines()
	assert.Check(t, err)
	for _, secret := range secrets {
		assert.Check(t, !strings.Contains(l.String(), secret), "the log contains %q, which must never be printed:\n%s", secret, l)
	}
}

// Lines are the log lines so far.
func (p *Process) Lines(t *testing.T) []Line {
	t.Helper()
	lines, err := p.log.lines()
	assert.NilError(t, err)
	return lines
}

// Finished waits for the line that is logged when a request is over, found by its
// x-proxy-request-id.
func (p *Process) Finished(t *testing.T, requestID string) Line {
	t.Helper()
	assert.Assert(t, requestID != "", "an answer of the proxy carries no x-proxy-request-id")
	return p.wait(t, "of the finished request "+requestID, func(line Line) bool {
		// Retries are logged under the same id, without an outcome.
		return line["request_id"] == requestID && line["outcome"] != nil
	})
}

// Only waits for the line of the only request so far, for a client that left before it learnt
// its x-proxy-request-id.
func (p *Process) Only(t *testing.T) Line {
	t.Helper()
	return p.wait(t, "of a finished request", func(line Line) bool { return line["outcome"] != nil })
}

// State waits until the process logs that it has reached a state of its life.
func (p *Process) State(t *testing.T, state string) {
	t.Helper()
	p.wait(t, "with state "+state, func(line Line) bool { return line["state"] == state })
}

// wait polls, because the line may be written after the client has its answer.
func (p *Process) wait(t *testing.T, what string, match func(Line) bool) Line {
	t.Helper()
	var found Line
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		for _, line := range p.Lines(t) {
			if match(line) {
				found = line
				return poll.Success()
			}
		}
		return poll.Continue("no log line %s", what)
	}, poll.WithTimeout(patience), poll.WithDelay(5*time.Millisecond))
	return found
}
