package faults

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// What an upstream may send first on a connection after the TLS handshake. The first connection is always a good one. The proxy sends a
// request before the upstream has sent anything, so an unanswered request may have been read (contract rows 2.1 and 2.4).
func TestH2Connect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		hello  func(c *h2conn) bool // on every connection but the first
		settle []string
		want   []end
		reason string
	}{
		{"nothing, for a second", func(c *h2conn) bool { return false }, []string{"timeout_secs = 1"}, []end{timedOut}, noAnswer},
		{"nothing, twice", func(c *h2conn) bool { return false }, []string{"timeout_secs = 1", "retries = 1"}, []end{timedOut}, "timeout after 1s (2 attempts)"},
		{"FIN", func(c *h2conn) bool { c.fin(); return false }, nil, []end{failed}, closedConnection},
		{"RST", func(c *h2conn) bool { c.reset(); return false }, nil, []end{failed}, ""},
		{"HTTP/1.1 and FIN", func(c *h2conn) bool {
			c.bytes("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n")
			c.fin()
			return false
		}, nil, []end{failed}, "upstream connection failed: the "}, // net/http reports either the bytes or the end
		{"GOAWAY", func(c *h2conn) bool { c.settle(); c.goAway(0, http2.ErrCodeNo); return false }, nil, []end{failed}, ""},
		{"GOAWAY, once", func(c *h2conn) bool {
			c.settle()
			if c.nth == 2 {
				c.goAway(0, http2.ErrCodeNo)
			}
			return c.nth > 2
		}, nil, []end{answered}, ""},
		{"an error", func(c *h2conn) bool {
			c.settle()
			c.goAway(0, http2.ErrCodeInadequateSecurity)
			c.fin()
			return false
		}, nil, []end{failed}, "the upstream closed the"},
		{"invalid SETTINGS", func(c *h2conn) bool {
			c.write(func(fr *http2.Framer) {
				fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
			})
			return true
		}, nil, []end{failed}, "upstream connection failed: the "}, // likewise the fault or the end
		{"SETTINGS with unknown settings", func(c *h2conn) bool {
			c.settle(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1}, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 0},
				http2.Setting{ID: 0xffff, Val: 1})
			return true
		}, nil, []end{answered}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			cured := make(chan struct{})
			up.hello = func(c *h2conn) bool {
				if c.nth == 1 || isClosed(cured) {
					c.settle()
					return true
				}
				if tt.hello(c) {
					return true
				}
				if slices.Contains(tt.want, timedOut) {
					c.serving.Go(func() { // a silent connection ends after the fault; the proxy does not use the others again
						c.pause(cured)
						c.fin()
					})
				}
				return false
			}
			w := watch(t, up, tt.settle...)
			c := w.post("/first", "{}")
			got, logged := w.ended(c, tt.want...)
			if tt.reason != "" {
				w.tells(logged, tt.reason)
			}
			shouldRetry := ""
			if got == timedOut {
				shouldRetry = "false"
			}
			assert.Equal(t, c.res.Header.Get("X-Should-Retry"), shouldRetry)
			for _, retry := range w.retries(logged) {
				assert.Equal(t, retry["msg"], "retry: the upstream may have run the request already")
			}
			assert.Assert(t, up.requests("/first") <= 1, "a request that may have been read was sent again")
			assert.Assert(t, up.connections() < 10, "%d connections for one request", up.connections())
			before := up.connections()
			_, logged = w.ended(w.request("GET", "/bare", ""), tt.want...)
			if tt.name == "GOAWAY" {
				w.tells(logged, "the upstream closes every new HTTP/2 connection")
			}
			// Seven, and one more whenever the GOAWAY was faster than the request. Without a bound they are thousands.
			opened := up.connections() - before
			assert.Assert(t, opened < 20, "%d connections for one request without a body", opened)
			close(cured)
			if got == timedOut {
				up.parted(up.connections() - 1)
			}
			w.undisturbed()
		})
	}
}

// The proxy abandons a connection on which only TCP answers within 60 s, whatever the timeouts are (contract row 2.5).
func TestH2Deaf(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	over := make(chan struct{})
	up.on("/waiting", func(s *h2stream) {
		if s.whole(); s.nth == 2 {
			s.pause(over)
			return
		}
		s.last(":status", "200")
	})
	up.follow("/streaming", script{until: over})
	w := watch(t, up, "timeout_secs = 600", "retries = 1")
	waiting := w.post("/waiting", "{}")
	up.arrives("/waiting", 1)
	s := up.all("/waiting")[0]
	streaming := w.open("/streaming")
	s.change(func() { s.deaf = true })
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second+patience)
	defer cancel()
	retry, err := w.p.Wait(ctx, "of a retry", func(l binary.Line) bool { return l["attempt"] != nil })
	assert.NilError(t, err)
	assert.Equal(t, retry["msg"], "retry: the upstream may have run the request already")
	w.ended(waiting, answered)
	_, logged := w.ended(streaming, broken)
	w.tells(logged, "the connection died")
	close(over)
	w.undisturbed()
}
