package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
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

// pipes is a listener without a network, for tests in which time is not real.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// startOnPipes runs the proxy in the bubble of the calling test. Nobody listens at its upstream.
func startOnPipes(t *testing.T, o proxy.Options) (dial func() net.Conn, m *metrics.Metrics) {
	u, err := url.Parse("http://127.0.0.1:1")
	assert.NilError(t, err)
	o.Upstream, o.Timeout, o.MaxConnections = u, 10*time.Minute, 10
	o.Logger, o.Draining = slog.New(slog.DiscardHandler), func() bool { return false }
	m = metrics.New(prometheus.NewRegistry(), "test", metrics.Limits{})
	listener := make(pipes)
	s := &http.Server{Handler: proxy.New(o, m), ReadTimeout: 15 * time.Second, BaseContext: func(net.Listener) context.Context { return t.Context() }}
	go s.Serve(listener)
	t.Cleanup(func() {
		close(listener)
		s.Close()
		time.Sleep(2 * time.Hour) // for the writers and net/http's own goroutines, in fake time
	})
	return func() net.Conn {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close() })
		listener <- server
		return client
	}, m
}

// status reads the first bytes of an answer.
func status(t *testing.T, conn net.Conn) string {
	buf := make([]byte, len("HTTP/1.1 408"))
	_, err := conn.Read(buf)
	assert.NilError(t, err)
	return string(buf[len("HTTP/1.1 "):])
}

// TestSlowBody covers row 1.12 under fake time: a body may pause for less than 30 s at any time and may take 30 s, and a second for each
// 16 KiB; nothing shorter ends it.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const size = 600 << 10
	for _, tt := range []struct {
		name   string
		bytes  int           // in each piece
		pause  time.Duration // before each piece but the first
		status string
		at     time.Duration // when the answer comes
	}{
		{"20 KiB/s", 20 << 10, time.Second + time.Millisecond, "502", 29 * time.Second},
		{"20 KiB/s in pieces 29 s apart", 580 << 10, 29 * time.Second, "502", 29 * time.Second},
		{"8 KiB/s", 8 << 10, time.Second + time.Millisecond, "408", 59 * time.Second},
		{"a byte a second", 1, time.Second, "408", 30 * time.Second},
		{"stopped", 1, time.Hour, "408", 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, _ := startOnPipes(t, proxy.Options{MaxBodyBytes: 32 << 20, MaxBufferedBytes: 64 << 20})
				client, start := dial(), time.Now()
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
				assert.Equal(t, status(t, client), tt.status)
				assert.Equal(t, time.Since(start).Truncate(time.Second), tt.at)
			})
		})
	}
}

// TestRefusedRequestWhoseBodyNeverComes covers section 4 under fake time: a refused request is answered at once, and its connection closed
// after the server's ReadTimeout.
func TestRefusedRequestWhoseBodyNeverComes(t *testing.T) {
	t.Parallel()
	for want, head := range map[string]string{
		"431": "POST / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 129),
		"405": "CONNECT h:1 HTTP/1.1\r\n",
		"400": "POST mailto:x HTTP/1.1\r\n",
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, _ := startOnPipes(t, proxy.Options{MaxBodyBytes: 1 << 20, MaxBufferedBytes: 1 << 20})
				client := dial()
				fmt.Fprint(client, head+"Host: p\r\nContent-Length: 1\r\n\r\n")
				start := time.Now()
				assert.Equal(t, status(t, client), want)
				assert.Assert(t, time.Since(start) < time.Second, "it took %v", time.Since(start))
				_, err := io.Copy(io.Discard, client)
				assert.NilError(t, err)
				assert.Assert(t, time.Since(start) <= 15*time.Second, "it took %v", time.Since(start))
			})
		})
	}
}

// TestPausedBodyWhileOthersWait covers row 1.12 under fake time: a body that pauses for 29 s is read to its end, though another waits for
// its room all the while, and then that one has its turn.
func TestPausedBodyWhileOthersWait(t *testing.T) {
	t.Parallel()
	const size = 4 << 10
	synctest.Test(t, func(t *testing.T) {
		dial, m := startOnPipes(t, proxy.Options{MaxBodyBytes: size, MaxBufferedBytes: size})
		first, second := dial(), dial()
		for _, client := range []net.Conn{first, second} {
			go fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size-1))
			synctest.Wait()
		}
		assert.Equal(t, m.Queued.Load(), int64(1), "nobody waits")
		time.Sleep(29 * time.Second)
		for _, client := range []net.Conn{first, second} {
			go client.Write([]byte("x"))
			assert.Equal(t, status(t, client), "502") // its upstream does not listen
			client.Close()
		}
	})
}

// deadlines is a response writer that notes whether a write deadline was set after the last write.
type deadlines struct {
	*httptest.ResponseRecorder
	extended bool
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.extended = true; return nil }
func (d *deadlines) Write(p []byte) (int, error) {
	d.extended = false
	return d.ResponseRecorder.Write(p)
}

// TestLastChunkHasItsOwnDeadline covers row 3.7: after a slow last write and a silence of the upstream, net/http still has to write the end.
func TestLastChunkHasItsOwnDeadline(t *testing.T) {
	g := start(t, serveAnswer(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	g.handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Equal(t, w.Body.String(), "ok")
	assert.Assert(t, w.extended)
}
