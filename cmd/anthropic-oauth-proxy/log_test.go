package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// startStuck starts the program with a standard error that is a full pipe, which nobody reads.
func startStuck(t *testing.T, upstreamURL string) (p *process, reader *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	assert.NilError(t, err)
	t.Cleanup(func() { reader.Close() })
	raw, err := writer.SyscallConn()
	assert.NilError(t, err)
	assert.NilError(t, raw.Write(func(fd uintptr) bool {
		for err == nil {
			_, err = syscall.Write(int(fd), []byte("\n"))
		}
		return true
	}))
	assert.ErrorIs(t, err, syscall.EAGAIN)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	free.Close()
	cmd := exec.Command(binary, "--listen", free.Addr().String(), "--upstream", upstreamURL)
	cmd.Stderr = writer
	p = launch(t, cmd)
	writer.Close()
	p.addr = free.Addr().String()
	poll.WaitOn(t, poll.Connection("tcp", p.addr), poll.WithTimeout(patience))
	return p, reader
}

// flood makes n requests whose log lines together exceed a megabyte.
func flood(t *testing.T, p *process, n int) {
	t.Helper()
	client := newClient(t)
	for range n {
		resp, err := client.Get(p.url("/plain/" + strings.Repeat("x", 1500)))
		assert.NilError(t, err)
		readBody(t, resp)
		assert.Equal(t, resp.StatusCode, http.StatusOK)
	}
}

// Contract section 8: if nobody reads the log, requests still work. Lost lines are counted, and the number is logged when somebody reads again.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	p, reader := startStuck(t, newUpstream(t, echo))
	const requests = maxUnwritten + 200
	flood(t, p, requests)
	resp, _ := get(t, p.url("/health"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)

	go io.Copy(p.stderr, reader)
	lost := p.logged("the number of lost lines", func(e entry) bool { return e["level"] == "WARN" && e["lines"] != nil })
	for i := range 3 { // one at a time: while somebody reads, each line arrives at once
		get(t, p.url(fmt.Sprint("/later/", i)))
		requestLine(p, fmt.Sprint("/later/", i))
	}
	told := 0
	for _, e := range p.stderr.entries() {
		if path, _ := e["path"].(string); path != "" && !strings.HasPrefix(path, "/later") || e["state"] != nil {
			told++
		}
	}
	const states = 3 // initializing, starting, running
	assert.Equal(t, told+int(lost["lines"].(float64)), requests+states, "the lines and the number of the lost ones do not add up")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, p.exit(), 0)
}

// Contract section 6: even if the log and a client are stuck, SIGTERM drains and a second SIGINT ends the program at once.
func TestSignalsWithStuckLog(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			upstream := newStream(t)
			p, _ := startStuck(t, upstream.url)
			flood(t, p, maxUnwritten+200)
			resp := open(t, p.url("/"))
			onlooker := dial(t, p.addr)
			onlooker.request("GET", "/health")
			p.signal(sig)
			poll.WaitOn(t, func(poll.LogT) poll.Result {
				resp, _ := onlooker.request("GET", "/health")
				return poll.Compare(cmp.Equal(resp.StatusCode, http.StatusServiceUnavailable))
			}, poll.WithTimeout(patience))
			if sig == syscall.SIGINT {
				p.signal(syscall.SIGINT)
				assert.Equal(t, p.exit(), 130)
				return
			}
			upstream.send(t, "the end")
			close(upstream.events)
			assert.Equal(t, readBody(t, resp), "the end")
			assert.Equal(t, p.exit(), 0)
		})
	}
}

// Contract section 6: the program continues when the log's reader ends (SIGPIPE).
func TestLogReaderGoesAway(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	assert.NilError(t, err)
	cmd := exec.Command(binary, "--listen", "127.0.0.1:0", "--upstream", newUpstream(t, echo))
	cmd.Stderr = writer
	p := launch(t, cmd)
	writer.Close()
	go io.Copy(p.stderr, reader)
	p.addr = p.state("running")["addr"].(string)
	reader.Close()
	for range 3 {
		_, text := get(t, p.url("/"))
		assert.Equal(t, text, "upstream saw /")
	}
	p.signal(syscall.SIGTERM)
	assert.Equal(t, p.exit(), 0)
}

// Contract section 8: the queue of unwritten lines is also limited in bytes, and every line that is not written is counted.
func TestUnwrittenLinesAreBounded(t *testing.T) {
	r, w := io.Pipe()
	l := newAsyncLog(w, slog.LevelInfo)
	line := append(bytes.Repeat([]byte("x"), 64<<10), '\n')
	const sent = 1000
	for range sent {
		l.Write(line)
	}
	assert.Assert(t, l.bytes.Load() <= maxUnwrittenBytes, "%d bytes wait", l.bytes.Load())
	lost := l.dropped.Load()
	assert.Assert(t, lost >= sent-maxUnwrittenBytes/int64(len(line)) && lost < sent, "%d lines were dropped", lost)
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		text <- string(all)
	}()
	l.Close(time.Minute)
	w.Close()
	got := <-text
	assert.Equal(t, strings.Count(got, "xxx\n"), int(sent-lost))
	assert.Equal(t, strings.Count(got, fmt.Sprintf(`"lines":%d`, lost)), 1)
	assert.Equal(t, l.bytes.Load(), int64(0))
}

// Contract section 8: net/http tells the global logger of bytes that answer no request, and quotes them. In the program's log they are
// missing, and it stays JSON lines. internal/proxy's TestNothingSecret and FuzzWire look for all other secrets.
func TestAnswerToNoRequest(t *testing.T) {
	t.Parallel()
	p := startEnv(t, []string{"LOG_LEVEL=debug"}, newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		assert.Check(t, err)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsecret answer to no request")
		conn.Close()
	}))
	get(t, p.url("/plain?secret"))
	p.logged("what net/http says", func(e entry) bool { return e["msg"] == "Unsolicited response received on idle HTTP channel" })
	for line := range strings.Lines(p.stderr.text()) {
		assert.Check(t, strings.HasPrefix(line, "{") && !strings.Contains(line, "secret"), line)
	}
}
