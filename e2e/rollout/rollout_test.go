// Package rollout proves that a rolling update loses nothing: no request fails and no stream is cut while one process
// after the other takes over, although clients keep their connections.
package rollout

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"gotest.tools/v3/assert"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	rollouts = 20
	// preStop stands for the manifests' 10 s, in which the endpoint disappears everywhere. Here it disappears at once,
	// so less will do.
	preStop      = 300 * time.Millisecond
	streamEvents = 40 // 25 ms apart: a stream lives through the end of its process' preStop
)

// upstream answers /stream with events and everything else with a short answer.
func upstream(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if r.URL.Path != "/stream" {
		io.WriteString(w, "short answer")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for i := range streamEvents {
		fmt.Fprintf(w, "data: %d\n\n", i)
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
	io.WriteString(w, "data: last\n\n")
}

// load is what the clients count.
type load struct {
	url              string
	requests, failed atomic.Int64
	streams, cut     atomic.Int64
	mu               sync.Mutex
	firstOf          map[string]bool // kinds of failures that were reported
}

// client sends one request after the other on its own kept connection, pausing up to think in between, until stop.
func (l *load) client(t *testing.T, stop <-chan struct{}, path string, think time.Duration) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for {
		body := "a question"
		// Without GetBody net/http cannot quietly send it again: what gets lost is to be counted.
		req, err := http.NewRequest("POST", l.url+path, io.NopCloser(strings.NewReader(body)))
		assert.NilError(t, err)
		req.ContentLength = int64(len(body))
		if path == "/stream" {
			l.streams.Add(1)
			l.count(t, l.stream(transport, req), &l.cut)
		} else {
			l.requests.Add(1)
			l.count(t, l.request(transport, req), &l.failed)
		}
		select {
		case <-stop:
			return
		case <-time.After(rand.N(think)):
		}
	}
}

func (l *load) count(t *testing.T, err error, failures *atomic.Int64) {
	if err == nil {
		return
	}
	failures.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.firstOf[err.Error()] {
		l.firstOf[err.Error()] = true
		t.Log(err)
	}
}

func (l *load) request(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != "short answer" {
		return fmt.Errorf("request: status %d, body %q, error %v", resp.StatusCode, body, err)
	}
	return nil
}

func (l *load) stream(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer resp.Body.Close()
	last := ""
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if lines.Text() != "" {
			last = lines.Text()
		}
	}
	if lines.Err() != nil || last != "data: last" {
		return fmt.Errorf("stream: cut (%v)", lines.Err())
	}
	return nil
}

// One process takes over from the other, twenty times, under load from clients that keep their connections: some busy,
// some that pause up to two seconds, some that stream all the time.
func TestRollouts(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(upstream))
	t.Cleanup(up.Close)
	config := binary.Config{Upstream: up.URL, Proxy: "drain_timeout_secs = 600"} // the manifests'
	old := binary.Start(t, config)
	path := newForwarder(t, strings.TrimPrefix(old.URL, "http://"))
	l := &load{url: "http://" + path.listener.Addr().String(), firstOf: map[string]bool{}}

	stop := make(chan struct{})
	var clients sync.WaitGroup
	start := func(n int, path string, think time.Duration) {
		for range n {
			clients.Go(func() { l.client(t, stop, path, think) })
		}
	}
	start(8, "/busy", 20*time.Millisecond)
	start(12, "/lazy", 2*time.Second)
	start(6, "/stream", 50*time.Millisecond)

	for range rollouts {
		next := binary.Start(t, config)
		path.switchTo(strings.TrimPrefix(next.URL, "http://"))
		<-time.After(preStop)
		code := old.Stop(t) // SIGTERM, and wait for the end
		assert.Equal(t, code, 0)
		assert.Assert(t, path.dialed.Load() > 0, "no client went over to the new process: nothing was tested")
		old = next
	}
	close(stop)
	clients.Wait()
	t.Logf("%d rollouts: %d requests, %d failed; %d streams, %d cut", rollouts, l.requests.Load(), l.failed.Load(), l.streams.Load(), l.cut.Load())
	assert.Check(t, l.failed.Load() == 0, "requests failed")
	assert.Check(t, l.cut.Load() == 0, "streams were cut")
	assert.Check(t, l.requests.Load() > 100*rollouts && l.streams.Load() > rollouts, "too little load to prove anything")
}
