package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// oneConn is a listener with one connection and no network, for tests in which time is not real.
type oneConn chan net.Conn

func (l oneConn) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l oneConn) Close() error   { return nil }
func (l oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowBody covers row 1.12 under fake time: a body may pause for less than 30 s at any time and may take 30 s, and a second for each
// 16 KiB; nothing shorter ends it.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const size = 600 << 10
	for _, tt := range []struct {
		name   string
		bytes  int           // in each piece
		pause  time.Duration // before each piece but the first
		status int
		at     time.Duration // when the answer comes
	}{
		{"20 KiB/s", 20 << 10, time.Second + time.Millisecond, http.StatusBadGateway, 29 * time.Second},
		{"20 KiB/s in pieces 29 s apart", 580 << 10, 29 * time.Second, http.StatusBadGateway, 29 * time.Second},
		{"8 KiB/s", 8 << 10, time.Second + time.Millisecond, http.StatusRequestTimeout, 59 * time.Second},
		{"a byte a second", 1, time.Second, http.StatusRequestTimeout, 30 * time.Second},
		{"stopped", 1, time.Hour, http.StatusRequestTimeout, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, err := url.Parse("http://127.0.0.1:1")
				assert.NilError(t, err)
				m := metrics.New(prometheus.NewRegistry(), "test", metrics.Limits{})
				handler := proxy.New(proxy.Options{Upstream: u, Timeout: 10 * time.Minute, MaxConnections: 10, MaxBodyBytes: 32 << 20,
					MaxBufferedBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler), Draining: func() bool { return false }}, m)
				ctx, cancel := context.WithCancel(t.Context())
				listener := make(oneConn)
				s := &http.Server{Handler: handler, BaseContext: func(net.Listener) context.Context { return ctx }}
				go s.Serve(listener)
				client, server := net.Pipe()
				listener <- server
				start := time.Now()
				go func() {
					fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n", size)
					for sent := 0; sent < size; {
						piece := make([]byte, min(tt.bytes, size-sent))
						if n, err := client.Write(piece); err != nil || n < len(piece) {
							return
						}
						if sent += len(piece); sent < size {
							time.Sleep(tt.pause)
						}
					}
				}()
				buf := make([]byte, len("HTTP/1.1 408"))
				_, err = client.Read(buf)
				assert.NilError(t, err)
				assert.Equal(t, string(buf), fmt.Sprint("HTTP/1.1 ", tt.status))
				took := time.Since(start)
				client.Close()
				cancel()
				close(listener)
				s.Close()
				time.Sleep(2 * time.Hour) // for the writer and net/http's own goroutines, in fake time
				assert.Equal(t, took.Truncate(time.Second), tt.at)
			})
		})
	}
}
