package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// startBusy starts the program with an answer whose first event has come, and a request that waits for its slot.
func startBusy(t *testing.T, settings ...string) (upstream *stream, p *process, running *http.Response, queued <-chan string) {
	t.Helper()
	upstream = newStream(t)
	p = start(t, upstream.url, append(settings, "max_connections = 1")...)
	running = open(t, p.url("/v1/messages"))
	upstream.send(t, "event: one\n\n")
	readExactly(t, running.Body, "event: one\n\n")
	queued = ask(t, p.url("/queued"))
	p.pollMetric("proxy_requests_queued 1")
	return upstream, p, running, queued
}

// Contract section 6: after any of the signals a running stream reaches its proper end, and a queued request is served. Repeated signals
// change nothing, except that a second SIGINT exits at once.
func TestSignals(t *testing.T) {
	const term, hup, interrupt = syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT
	for _, tt := range []struct {
		signals []syscall.Signal
		code    int
	}{
		{[]syscall.Signal{term}, 0},
		{[]syscall.Signal{interrupt}, 0},
		{[]syscall.Signal{hup}, 0},
		{[]syscall.Signal{term, term, hup, term}, 0},
		{[]syscall.Signal{hup, term}, 0},
		{[]syscall.Signal{term, interrupt}, 0},
		{[]syscall.Signal{interrupt, term, hup}, 0},
		{[]syscall.Signal{interrupt, interrupt}, 130},
		{[]syscall.Signal{term, interrupt, interrupt}, 130},
		{[]syscall.Signal{interrupt, term, interrupt}, 130},
	} {
		t.Run(fmt.Sprint(tt.signals), func(t *testing.T) {
			t.Parallel()
			upstream, p, resp, queued := startBusy(t)
			for i, sig := range tt.signals {
				p.signal(sig)
				p.loggedTimes("signal", i+1, func(e entry) bool { return e["signal"] != nil || e["msg"] == "second SIGINT: exiting now" })
			}
			if tt.code != 0 {
				assert.Equal(t, p.exit(), tt.code)
				_, err := io.ReadAll(resp.Body)
				assert.ErrorContains(t, err, "", "an aborted stream must not look complete")
				assert.Check(t, !slices.Contains(states(p.stderr), "stopped"), "it must exit at once, without the state stopped")
				return
			}
			upstream.send(t, "event: two\n\n")
			close(upstream.events)
			rest, err := io.ReadAll(resp.Body)
			assert.NilError(t, err)
			assert.Equal(t, string(rest), "event: two\n\n")
			assert.Equal(t, receive(t, queued, "the answer to the queued request"), `200, close: true, body: ""`)
			assert.Equal(t, p.exit(), 0)
			assert.DeepEqual(t, states(p.stderr), []string{"initializing", "starting", "running", "draining", "stopped"})
			assert.Equal(t, p.state("stopped")["aborted"], 0.0)
			assert.Equal(t, requestLine(p, "/v1/messages")["outcome"], "complete")
		})
	}
}

// Contract section 6: under nohup the program ignores SIGHUP.
func TestIgnoredSIGHUP(t *testing.T) {
	t.Parallel()
	p := launch(t, exec.Command("sh", "-c", `trap "" HUP; exec "$0" "$@"`, binary, "--listen", "127.0.0.1:0"))
	p.state("running")
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGTERM)
	assert.Equal(t, p.exit(), 0)
	assert.Check(t, !strings.Contains(p.stderr.text(), "hangup"), "SIGHUP must be ignored")
}

func states(log *lineLog) (states []string) {
	for _, e := range log.entries() {
		if s, ok := e["state"].(string); ok {
			states = append(states, s)
		}
	}
	return states
}

// Contract section 6: at the deadline of the drain, running answers are aborted, so that they do not look complete, and counted. The exit
// code is still 0. With drain_timeout_secs = 0 this happens at once.
func TestDrainDeadline(t *testing.T) {
	for _, setting := range []string{"drain_timeout_secs = 1", "drain_timeout_secs = 0"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			_, p, resp, queued := startBusy(t, setting)
			p.signal(syscall.SIGTERM)
			_, err := io.ReadAll(resp.Body)
			assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "an aborted stream must not look complete")
			end := receive(t, queued, "the end of the queued request")
			assert.Assert(t, strings.HasSuffix(end, ": EOF"), end)
			assert.Equal(t, p.exit(), 0)
			assert.Check(t, p.state("stopped")["aborted"].(float64) >= 2, "what was aborted is counted")
			line := requestLine(p, "/v1/messages")
			assert.Equal(t, line["outcome"], "drained")
			assert.Equal(t, line["level"], "WARN")
			assert.Equal(t, requestLine(p, "/queued")["outcome"], "drained")
		})
	}
}

// ask makes a request on a new connection and sends the result as text.
func ask(t *testing.T, url string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		resp, err := newClient(t).Post(url, "application/json", strings.NewReader("{}"))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answer <- strings.TrimSuffix(fmt.Sprintf("%d, close: %v, body: %q %v", resp.StatusCode, resp.Close, body, err), " <nil>")
	}()
	return answer
}

// requestLine waits for the log line of a request.
func requestLine(p *process, path string) entry {
	p.t.Helper()
	return p.logged("a request line for "+path, func(e entry) bool { return e["msg"] == "request" && e["path"] == path })
}

// Contract section 6: in the drain, requests on open connections still work and are answered with Connection: close. /health answers 503.
// New connections are refused.
func TestDrainServesOpenConnections(t *testing.T) {
	t.Parallel()
	upstream := newStream(t)
	p := start(t, upstream.url)
	var kept []*rawConn // connections between two requests
	for range 5 {
		c := dial(t, p.addr)
		resp, _ := c.request("GET", "/plain/before")
		assert.Equal(t, resp.Close, false, "before the drain connections are kept")
		kept = append(kept, c)
	}
	running := open(t, p.url("/stream")) // keeps the drain going for as long as the test needs it

	p.signal(syscall.SIGTERM)
	p.state("draining")
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			conn.Close()
		}
		return poll.Compare(cmp.ErrorIs(err, syscall.ECONNREFUSED))
	}, poll.WithTimeout(patience))

	for i, tt := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/health", 503, `"status":"draining"`},
		{"GET", "/plain/after?x=1", 200, "upstream saw /plain/after?x=1"},
		{"GET", "/metrics", 200, "proxy_requests_in_flight 1"},
		{"POST", "/health", 405, "proxy_error"},
		{"CONNECT", "elsewhere.example:443", 405, "proxy_error"},
	} {
		resp, body := kept[i].request(tt.method, tt.target)
		assert.Check(t, resp.StatusCode == tt.status, "%s %s: status %d", tt.method, tt.target, resp.StatusCode)
		assert.Check(t, strings.Contains(body, tt.body), "%s %s: %s", tt.method, tt.target, body)
		assert.Check(t, resp.Close, "%s %s is not answered with Connection: close", tt.method, tt.target)
		_, err := kept[i].in.ReadByte()
		assert.Check(t, errors.Is(err, io.EOF), "%s %s: the connection stays open, or was reset: %v", tt.method, tt.target, err)
	}
	close(upstream.events)
	io.Copy(io.Discard, running.Body)
	assert.Equal(t, p.exit(), 0)
}

// Contract section 6: if the port is taken, the program exits with 1 and says why.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer taken.Close()
	p := launch(t, exec.Command(binary, "--listen", taken.Addr().String()))
	assert.Equal(t, p.exit(), 1)
	text := p.stderr.text()
	assert.Check(t, strings.Contains(text, taken.Addr().String()) && strings.Contains(text, "address already in use: choose another address with --listen"), text)
	assert.DeepEqual(t, states(p.stderr), []string{"initializing", "starting"})
}
