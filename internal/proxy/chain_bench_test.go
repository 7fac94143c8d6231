package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// BenchmarkChain compares everything this proxy does to a request with a bare ReverseProxy, over the same server and in
// front of the same upstream, which run in this process, too: what the two differ by is the point.
func BenchmarkChain(b *testing.B) {
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Request-Id", "req_1")
		io.WriteString(w, strings.Repeat("x", 300))
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	defer upstream.Close()
	u, err := url.Parse(upstream.URL)
	assert.NilError(b, err)

	chain := proxy.New(proxy.Options{
		Upstream: u, Timeout: time.Minute, Retries: 2, MaxConnections: 100, MaxBodyBytes: 1 << 20, MaxBufferedBytes: 8 << 20,
		Rules:  []proxy.Rule{{Name: "anthropic-beta", Value: "oauth-2025-04-20", Add: true}},
		Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)),
	}, metrics.New(prometheus.NewRegistry(), "test", metrics.Limits{}))
	bare := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		FlushInterval: -1,
		Transport:     &http.Transport{ForceAttemptHTTP2: true, DisableCompression: true},
	}
	for _, contender := range []struct {
		name    string
		handler http.Handler
	}{{"chain", chain}, {"bare", bare}} {
		b.Run(contender.name, func(b *testing.B) {
			server := httptest.NewUnstartedServer(contender.handler)
			server.Config.ConnContext = proxy.WithConn
			server.Start()
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			assert.NilError(b, err)
			defer conn.Close()
			in := bufio.NewReader(conn)
			request := smallRequest(server.Listener.Addr().String())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Fatal(err)
				}
				if err := skipResponse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// smallRequest is like one of Claude Code's, but for its size.
func smallRequest(host string) string {
	body := strings.Repeat("q", 2000)
	return fmt.Sprintf("POST /v1/messages?beta=true HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Accept: application/json\r\nAnthropic-Beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nAnthropic-Version: 2023-06-01\r\n"+
		"Content-Type: application/json\r\nUser-Agent: claude-cli/2.1.330 (external, cli)\r\nX-App: cli\r\nX-Stainless-Lang: js\r\n"+
		"X-Stainless-Os: Linux\r\nX-Stainless-Retry-Count: 0\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nContent-Length: %d\r\n\r\n%s",
		host, strings.Repeat("t", 100), len(body), body)
}

// skipResponse reads one response of declared length.
func skipResponse(in *bufio.Reader) error {
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, digit := range bytes.TrimSpace(n) {
				length = 10*length + int(digit-'0')
			}
		}
		if len(line) == 2 {
			_, err := in.Discard(length)
			return err
		}
	}
}
