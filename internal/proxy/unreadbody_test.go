package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// A refused request whose body never comes must not hold its connection for ever (contract row 1.12).
func TestRefusedRequestWhoseBodyNeverComes(t *testing.T) {
	for name, head := range map[string]string{
		"too many lines":        "POST / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 129),
		"CONNECT":               "CONNECT h:1 HTTP/1.1\r\n",
		"a target without path": "POST mailto:x HTTP/1.1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, _ := startOnPipes(t, proxy.Options{MaxBodyBytes: 1 << 20, MaxBufferedBytes: 1 << 20})
				client := dial()
				fmt.Fprint(client, head+"Host: p\r\nContent-Length: 1\r\n\r\n")
				client.SetReadDeadline(time.Now().Add(time.Hour))
				answer, err := io.ReadAll(client)
				assert.Check(t, len(answer) > 0, "no answer within an hour")
				assert.Check(t, err, "after an hour the connection is still open")
			})
		})
	}
}

// The server's read deadline is not for a request without a body: net/http would take its end for the client's leaving.
func TestRequestWithoutBodyOutlivesReadTimeout(t *testing.T) {
	up, err := url.Parse(serveUpstream(t, func(http.ResponseWriter, *http.Request) { time.Sleep(300 * time.Millisecond) }).URL)
	assert.NilError(t, err)
	server := httptest.NewUnstartedServer(proxy.New(proxy.Options{
		Upstream: up, Timeout: patience, MaxConnections: 1, MaxBodyBytes: 1, MaxBufferedBytes: 1,
		Logger: slog.New(slog.DiscardHandler), Draining: func() bool { return false },
	}, metrics.New(prometheus.NewRegistry(), "test", metrics.Limits{})))
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	res, err := http.Get(server.URL)
	assert.NilError(t, err)
	assert.Equal(t, res.StatusCode, 200)
}
