package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

func maxStreams(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

// Many requests, and connections that take few at once: all are served, each once. The referee counts the streams.
func TestH2MaxStreams(t *testing.T) {
	t.Parallel()
	const requests = 30
	for _, tt := range []struct {
		name  string
		limit uint32
		late  bool // said when ten streams are open
	}{
		{"one", 1, false},
		{"three", 3, false},
		{"one, said late", 1, true},
		{"none, said late", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			if !tt.late {
				up.settings = []http2.Setting{maxStreams(tt.limit)}
			}
			lowered := make(chan struct{})
			up.on("/open", func(s *h2stream) {
				s.stream()
				s.send(event)
				s.pause(lowered)
				s.finish(event)
			})
			w := newH2World(t, up)
			var open, clients []*client
			if tt.late {
				for range 10 {
					open = append(open, w.open("/open"))
				}
				c := up.find("/open").h2conn
				c.set(maxStreams(tt.limit))
				assert.Assert(t, c.sync())
			}
			close(lowered)
			for i := range requests {
				path := fmt.Sprint("/request-", i)
				up.on(path, func(s *h2stream) {
					s.whole()
					s.head(":status", "200")
					s.finish(path)
				})
				clients = append(clients, w.post(path, "{}"))
			}
			for i, c := range clients {
				w.ended(c, answered)
				assert.Equal(t, c.body.String(), c.path)
				assert.Equal(t, up.requests(c.path), 1, "request %d", i)
			}
			for _, c := range open {
				w.ended(c, answered)
				assert.Equal(t, c.body.String(), event+event)
			}
			w.undisturbed()
		})
	}
}

// No stream at all may be a short state of an upstream that starts: what is asked meanwhile is served when it is over, or told.
func TestH2NoStreamsYet(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	raise := make(chan struct{})
	up.hello = func(c *h2conn) bool {
		select {
		case <-raise:
			c.set()
		default:
			if c.nth == 1 {
				c.set()
				break
			}
			c.set(maxStreams(0))
			up.serving.Go(func() {
				select {
				case <-raise:
					c.set(maxStreams(100))
				case <-c.done:
				}
			})
		}
		return true
	}
	w := newH2World(t, up)
	c := w.post("/early", "{}")
	up.awaitConns(2)
	close(raise)
	w.ended(c, answered, failed)
	w.undisturbed()
}

// awaitConns waits until so many connections have come.
func (u *h2Upstream) awaitConns(n int) {
	u.t.Helper()
	u.until(fmt.Sprint(n, " connections reach the upstream"), func() bool { return len(u.conns) >= n })
}

// A connection dies with many streams on it, in all phases: each of them is told, honestly, and the next request is served.
func TestH2SharedFate(t *testing.T) {
	t.Parallel()
	const each = 17
	for _, how := range []struct {
		name string
		end  func(c *h2conn)
	}{
		{"FIN", (*h2conn).fin},
		{"RST", (*h2conn).reset},
		{"GOAWAY, then FIN", func(c *h2conn) { c.goAway(never, http2.ErrCodeInternal); c.fin() }},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.tight = true
			var waiting, streaming, uploading []*client
			w := newH2World(t, up)
			for i := range each {
				silent, begun, stuck := fmt.Sprint("/waiting-", i), fmt.Sprint("/streaming-", i), fmt.Sprint("/uploading-", i)
				up.on(silent, func(s *h2stream) {})
				up.on(begun, func(s *h2stream) { s.stream(); s.send(event) })
				up.on(stuck, func(s *h2stream) {})
				waiting = append(waiting, w.post(silent, "{}"))
				up.await(silent, 1)
				streaming = append(streaming, w.open(begun))
				uploading = append(uploading, w.post(stuck, upload(100<<10)))
				up.await(stuck, 1)
			}
			conns := up.connections()
			assert.Equal(t, len(conns), 2, "51 streams are fewer than HTTP/2's usual limit")
			how.end(conns[1])
			for i := range each {
				w.ended(waiting[i], failed)
				w.ended(streaming[i], broken)
				w.ended(uploading[i], failed)
				for _, c := range []*client{waiting[i], streaming[i], uploading[i]} {
					assert.Equal(t, up.requests(c.path), 1, "%s was sent again", c.path)
				}
			}
			up.on("/after", (*h2stream).grantAll)
			w.undisturbed()
		})
	}
}

// A client that reads slowly, or not at all, holds up nobody else on its connection, and the flood that is meant for it stays at the
// upstream: the proxy's memory does not grow.
func TestH2SlowReaders(t *testing.T) {
	t.Parallel()
	const readers, size = 10, 24 << 20
	up := newH2Upstream(t)
	w := newH2World(t, up)
	text := strings.Repeat(event, size/len(event))
	var slow []*client
	for i := range readers {
		path := fmt.Sprint("/flood-", i)
		up.on(path, func(s *h2stream) {
			s.stream()
			s.send(event)
			s.send(text)
			s.finish("")
		})
		slow = append(slow, w.open(path))
	}
	s := up.find(fmt.Sprint("/flood-", readers-1))
	assert.Equal(t, len(up.connections()), 2)
	// All of them fill what is between the proxy and its client, at last the streams' windows, and then stand still.
	for _, c := range up.streams() {
		if strings.HasPrefix(c.path, "/flood-") {
			assert.Assert(t, c.until("the flood stands still", func() bool { return c.stuck }))
		}
	}
	for i := range 10 {
		path := fmt.Sprint("/beside-", i)
		c := w.post(path, "{}")
		w.ended(c, answered)
		assert.Equal(t, up.find(path).h2conn, s.h2conn, "on the same connection")
	}
	w.bounded(120)
	for i, c := range slow {
		if i%2 == 0 {
			c.abort()
			w.ended(c, leftWithin)
			continue
		}
		w.ended(c, answered)
		assert.Assert(t, c.body.String() == event+text, "%d bytes", c.body.Len())
	}
	w.undisturbed()
}
