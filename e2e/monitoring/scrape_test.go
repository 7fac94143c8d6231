package monitoring

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// patience is how long anything may take on a busy machine; nothing waits for it unless it fails.
const patience = 30 * time.Second

// series is a metric with the values that each of its labels took.
type series map[string]map[string]bool

// scrape is everything that /metrics showed, by metric name.
type scrape map[string]series

// busyProxy is one proxy for all tests, which has seen every kind of traffic there is.
var busy struct {
	sync.Once
	scrape   scrape
	outcomes map[string]bool // of its log
}

// traffic returns what /metrics shows after every kind of traffic, and the outcomes of the log.
func traffic(t *testing.T) (scrape, map[string]bool) {
	t.Helper()
	busy.Do(func() { busy.scrape, busy.outcomes = makeTraffic(t) })
	assert.Assert(t, busy.scrape != nil, "the proxy could not be brought to show its metrics; see the first test that failed")
	return busy.scrape, busy.outcomes
}

// upstream does what the request's path names.
func upstream(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	begin := func() {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "event: ping\n\n")
		http.NewResponseController(w).Flush()
	}
	switch r.URL.Path {
	case "/ok":
		for _, window := range []string{"5h", "7d"} {
			w.Header().Set("Anthropic-Ratelimit-Unified-"+window+"-Utilization", "0.42")
			w.Header().Set("Anthropic-Ratelimit-Unified-"+window+"-Reset", "1800000000")
		}
		begin()
	case "/400":
		w.WriteHeader(http.StatusBadRequest)
	case "/401":
		w.WriteHeader(http.StatusUnauthorized)
	case "/403":
		w.WriteHeader(http.StatusForbidden)
	case "/closed": // before the headers
		panic(http.ErrAbortHandler)
	case "/reset": // after them
		begin()
		panic(http.ErrAbortHandler)
	case "/silent": // before the headers, until the proxy gives up
		<-r.Context().Done()
	case "/unanswered":
		hanging <- struct{}{}
		<-r.Context().Done()
	case "/idle":
		begin()
		<-r.Context().Done()
	case "/endless": // never silent for long
		begin()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
				begin()
			}
		}
	}
}

// hanging is sent to when a request for /unanswered has come as far as the upstream.
var hanging = make(chan struct{}, 10)

func makeTraffic(t *testing.T) (scrape, map[string]bool) {
	server := httptest.NewServer(http.HandlerFunc(upstream))
	t.Cleanup(server.Close)
	p := binary.Start(t, binary.Config{Upstream: server.URL, Proxy: "timeout_secs = 1\nretries = 1\nmax_body_bytes = 1000\ndrain_timeout_secs = 0"})
	for _, request := range []struct {
		path   string
		size   int
		status int
		broken bool // the answer breaks off
	}{
		{"/ok", 100, 200, false},
		{"/400", 0, 400, false},
		{"/401", 0, 401, false},
		{"/403", 0, 403, false},
		{"/too-large", 1001, 400, false},
		{"/closed", 0, 502, false},
		{"/silent", 10, 504, false},
		{"/reset", 0, 200, true},
		{"/idle", 0, 200, true},
	} {
		resp, err := http.Post(p.URL+request.path, "application/json", bytes.NewReader(make([]byte, request.size)))
		assert.NilError(t, err, request.path)
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		assert.Equal(t, resp.StatusCode, request.status, request.path)
		assert.Equal(t, err != nil, request.broken, "%s: %v", request.path, err)
		p.Finished(t, resp.Header.Get("X-Proxy-Request-Id"))
	}
	leave(t, p)

	resp, err := http.Get(p.URL + "/metrics")
	assert.NilError(t, err)
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	assert.NilError(t, err)
	shown, err := readScrape(string(text))
	assert.NilError(t, err)

	// Aborted by the deadline of its drain, which is at once. Its end is in the log alone: there is nobody left to scrape.
	last, err := http.Get(p.URL + "/endless")
	assert.NilError(t, err)
	defer last.Body.Close()
	assert.Equal(t, p.Stop(t), 0)
	p.Finished(t, last.Header.Get("X-Proxy-Request-Id"))

	outcomes := map[string]bool{}
	for _, line := range p.Lines(t) {
		if outcome, ok := line["outcome"].(string); ok {
			outcomes[outcome] = true
		}
	}
	return shown, outcomes
}

// leave is a client that goes away before it has an answer, and one that goes in the middle of it.
func leave(t *testing.T, p *binary.Process) {
	t.Helper()
	for _, path := range []string{"/unanswered", "/endless"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
		assert.NilError(t, err)
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: proxy\r\n\r\n", path)
		assert.NilError(t, err)
		if path == "/unanswered" {
			select {
			case <-hanging:
			case <-time.After(patience):
				t.Fatal("the request never reached the upstream")
			}
		} else {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			assert.NilError(t, err)
			assert.Equal(t, resp.StatusCode, http.StatusOK)
		}
		assert.NilError(t, conn.Close())
		poll.WaitOn(t, func(poll.LogT) poll.Result {
			for _, line := range p.Lines(t) {
				if line["path"] == path && line["outcome"] == "client_gone" {
					return poll.Success()
				}
			}
			return poll.Continue("no log line of %s with outcome client_gone", path)
		}, poll.WithTimeout(patience), poll.WithDelay(5*time.Millisecond))
	}
}

// readScrape reads the text format: a sample's name and labels are written like a selector.
func readScrape(text string) (scrape, error) {
	shown := scrape{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		sample, _, found := cutLast(strings.TrimSpace(line), " ")
		if !found {
			return nil, fmt.Errorf("/metrics: not a sample: %q", line)
		}
		parsed, err := metricsql.Parse(sample)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
		for _, filters := range parsed.(*metricsql.MetricExpr).LabelFilterss {
			s := shown[filters[0].Value]
			if s == nil {
				s = series{}
				shown[filters[0].Value] = s
			}
			for _, f := range filters[1:] {
				if s[f.Label] == nil {
					s[f.Label] = map[string]bool{}
				}
				s[f.Label][f.Value] = true
			}
		}
	}
	return shown, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
