package monitoring

import (
	"bytes"
	"fmt"
	"io"
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
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// scrape is what /metrics showed: for each metric, the values of each label.
type scrape map[string]map[string]map[string]bool

// seen is shared by all tests: a proxy's metrics and log after every kind of traffic.
var seen struct {
	sync.Once
	scrape scrape
	log    []map[string]any
}

func traffic(t *testing.T) scrape {
	t.Helper()
	seen.Do(func() {
		seen.scrape = scrape{}
		server := httptest.NewServer(http.HandlerFunc(upstream))
		t.Cleanup(server.Close)
		see(t, binary.Config{Upstream: server.URL, Proxy: "timeout_secs = 1\nretries = 1\nmax_body_bytes = 1000\ndrain_timeout_secs = 0"},
			"/ok", "/400", "/401", "/403", "/429", "/too-large", "/closed", "/silent", "/reset", "/idle", "/endless")
	})
	assert.Assert(t, len(seen.log) > 0, "no metrics were collected from a proxy; see the first test that failed")
	return seen.scrape
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
	case "/400", "/401", "/403", "/429":
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
	case "/closed": // before the headers
		panic(http.ErrAbortHandler)
	case "/reset": // after them
		begin()
		panic(http.ErrAbortHandler)
	case "/silent": // before the headers, until the proxy gives up
		<-r.Context().Done()
	case "/idle":
		begin()
		<-r.Context().Done()
	case "/endless": // never silent for long
		for {
			begin()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// see starts a proxy, requests each path, and then stores its metrics and its log.
func see(t *testing.T, config binary.Config, paths ...string) {
	t.Helper()
	p := binary.Start(t, config)
	for _, path := range paths {
		size := 10
		if path == "/too-large" {
			size = 1001
		}
		resp, err := http.Post(p.URL+path, "application/json", bytes.NewReader(make([]byte, size)))
		assert.NilError(t, err, path)
		if path == "/endless" { // the client leaves
			io.ReadFull(resp.Body, make([]byte, 10))
		} else {
			io.Copy(io.Discard, resp.Body)
		}
		resp.Body.Close()
		p.Finished(t, resp.Header.Get("X-Proxy-Request-Id"))
	}
	resp, err := http.Get(p.URL + "/metrics")
	assert.NilError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			seen.scrape.add(t, line[:strings.LastIndex(line, " ")])
		}
	}
	assert.Equal(t, p.Stop(t), 0)
	for _, line := range p.Lines(t) {
		seen.log = append(seen.log, line)
	}
}

// add reads a sample's name and labels, which are written like a selector.
func (s scrape) add(t *testing.T, sample string) {
	t.Helper()
	parsed, err := metricsql.Parse(sample)
	assert.NilError(t, err, "/metrics: %s", sample)
	for _, filters := range parsed.(*metricsql.MetricExpr).LabelFilterss {
		name := filters[0].Value
		if s[name] == nil {
			s[name] = map[string]map[string]bool{}
		}
		for _, f := range filters[1:] {
			if s[name][f.Label] == nil {
				s[name][f.Label] = map[string]bool{}
			}
			s[name][f.Label][f.Value] = true
		}
	}
}
