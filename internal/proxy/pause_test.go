package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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

// TestPausedBodyWhileOthersWait covers row 1.12 under fake time: a body that pauses for 29 s is read to its end, though another waits for
// its room all the while, and then that one has its turn.
func TestPausedBodyWhileOthersWait(t *testing.T) {
	t.Parallel()
	const size = 4 << 10
	synctest.Test(t, func(t *testing.T) {
		u, err := url.Parse("http://127.0.0.1:1")
		assert.NilError(t, err)
		m := metrics.New(prometheus.NewRegistry(), "test", metrics.Limits{})
		handler := proxy.New(proxy.Options{Upstream: u, Timeout: 10 * time.Minute, MaxConnections: 10, MaxBodyBytes: size,
			MaxBufferedBytes: size, Logger: slog.New(slog.DiscardHandler), Draining: func() bool { return false }}, m)
		ctx, cancel := context.WithCancel(t.Context())
		listener := make(oneConn)
		s := &http.Server{Handler: handler, BaseContext: func(net.Listener) context.Context { return ctx }}
		go s.Serve(listener)
		var clients []net.Conn
		for range 2 {
			client, server := net.Pipe()
			listener <- server
			go fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size-1))
			clients = append(clients, client)
			synctest.Wait()
		}
		waiting := m.Queued.Load()
		time.Sleep(29 * time.Second)
		var answers []string
		for _, client := range clients {
			go client.Write([]byte("x"))
			answer := make([]byte, len("HTTP/1.1 502"))
			client.Read(answer)
			answers = append(answers, string(answer))
			client.Close()
		}
		cancel()
		close(listener)
		s.Close()
		time.Sleep(2 * time.Hour) // for the writer and net/http's own goroutines, in fake time
		assert.Equal(t, waiting, int64(1), "nobody waited")
		assert.DeepEqual(t, answers, []string{"HTTP/1.1 502", "HTTP/1.1 502"}) // nobody listens at the upstream
	})
}
