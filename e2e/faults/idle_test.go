package faults

import (
	"fmt"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// Whatever an upstream does on an idle connection, no client notices: the next POST is served on another connection. farewell is what
// the upstream does, and must make the proxy close the connection.
func TestIdle(t *testing.T) {
	t.Parallel()
	h1 := func(farewell func(r *h1request)) func(t *testing.T, path string) peer {
		return func(t *testing.T, path string) peer {
			up := newH1Upstream(t)
			up.on(path, func(r *h1request) {
				r.whole()
				r.stream()
				r.finish(event)
				farewell(r)
				io.Copy(io.Discard, r.in)
				r.over = true
			})
			return up
		}
	}
	h2 := func(farewell func(s *h2stream)) func(t *testing.T, path string) peer {
		return func(t *testing.T, path string) peer {
			up := newH2Upstream(t)
			up.on(path, func(s *h2stream) {
				s.whole()
				s.stream()
				s.finish(event)
				farewell(s)
			})
			return up
		}
	}
	for _, tt := range []struct {
		name string
		open func(t *testing.T, path string) peer
	}{
		{"HTTP/1.1, FIN", h1(func(r *h1request) { r.conn.(*net.TCPConn).CloseWrite() })},
		{"HTTP/1.1, bytes that are not HTTP", h1(func(r *h1request) { r.say(hush) })},
		{"HTTP/1.1, an answer that nobody asked for", h1(func(r *h1request) { r.say("HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\nContent-Length: 2\r\n\r\nno") })},
		{"HTTP/1.1, 408", h1(func(r *h1request) { r.say("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n") })},
		{"HTTP/2, FIN", h2(func(s *h2stream) { s.tls.CloseWrite(); s.cut() })},
		{"HTTP/2, FIN without TLS's close_notify", h2(func(s *h2stream) { s.cut() })},
		{"HTTP/2, GOAWAY", h2(func(s *h2stream) { s.goAway(s.id, http2.ErrCodeNo); s.cut() })},
		{"HTTP/2, GOAWAY with an error", h2(func(s *h2stream) { s.goAway(s.id, http2.ErrCodeEnhanceYourCalm); s.cut() })},
		{"HTTP/2, bytes that are not frames", h2(func(s *h2stream) { s.bytes("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n") })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := tt.open(t, "/last")
			w := watch(t, up)
			for i := range 20 {
				c := w.post("/last", "{}")
				c.expect(event)
				assert.NilError(t, c.rest().err)
				up.parted(i + 1)
				w.ended(w.post(fmt.Sprint("/next-", i), upload(100<<10)), answered)
			}
			w.expect(20, `proxy_requests_total{method="POST",status="200"}`)
			w.expect(20, `proxy_streams_total{outcome="complete"}`)
			w.undisturbed()
		})
	}
}
