package faults

import (
	"io"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// What an upstream may say first on a connection, once TLS stands. The first connection is always a good one.
func TestH2Connect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		hello   func(c *h2conn) bool // for every other connection, or
		second  func(c *h2conn) bool // for the second only
		settle  []string
		want    []end
		reached int // how many requests the upstream has seen; -1: it cannot know
	}{
		{name: "nothing, and reads nothing", hello: func(c *h2conn) bool { return false },
			settle: []string{"timeout_secs = 1"}, want: []end{timedOut}},
		{name: "nothing, and reads nothing, twice", hello: func(c *h2conn) bool { return false },
			settle: []string{"timeout_secs = 1", "retries = 1"}, want: []end{timedOut}},
		{name: "nothing", hello: func(c *h2conn) bool { c.up.serving.Go(c.drain); return false },
			settle: []string{"timeout_secs = 1"}, want: []end{timedOut}},
		{name: "FIN", hello: func(c *h2conn) bool { c.fin(); return false }, want: []end{failed}},
		{name: "RST", hello: func(c *h2conn) bool { c.reset(); return false }, want: []end{failed}},
		{name: "HTTP/1.1 and FIN", hello: func(c *h2conn) bool {
			c.bytes([]byte("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n"))
			c.fin()
			return false
		}, want: []end{failed}},
		{name: "GOAWAY", hello: func(c *h2conn) bool {
			c.write(func(fr *http2.Framer) { fr.WriteSettings(); fr.WriteGoAway(0, http2.ErrCodeNo, nil) })
			return false
		}, want: []end{failed}},
		{name: "GOAWAY, and the next is good", second: func(c *h2conn) bool {
			c.write(func(fr *http2.Framer) { fr.WriteSettings(); fr.WriteGoAway(0, http2.ErrCodeNo, nil) })
			return false
		}, want: []end{answered}, reached: 1},
		{name: "an error", hello: func(c *h2conn) bool {
			c.write(func(fr *http2.Framer) {
				fr.WriteSettings()
				fr.WriteGoAway(0, http2.ErrCodeInadequateSecurity, []byte(hush))
			})
			c.fin()
			return false
		}, want: []end{failed}},
		{name: "a PING before its SETTINGS", hello: func(c *h2conn) bool {
			c.write(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) })
			c.set()
			return true
		}, want: []end{failed, answered}, reached: -1},
		{name: "SETTINGS that nobody may send", hello: func(c *h2conn) bool {
			c.raw(http2.FrameSettings, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff)
			return true
		}, want: []end{failed}, reached: -1},
		{name: "SETTINGS only when the request has come", hello: func(c *h2conn) bool {
			c.up.serving.Go(func() {
				c.until("a request comes", func() bool { return len(c.streams) > 0 })
				c.set()
			})
			return true
		}, settle: []string{"timeout_secs = 1"}, want: []end{failed, answered, timedOut}, reached: -1}, // nobody need wait for them, nor do without
		{name: "many settings", hello: func(c *h2conn) bool {
			c.set(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 8192}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1},
				http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1},
				http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1 << 20}, http2.Setting{ID: 0x8, Val: 0}, http2.Setting{ID: 0x9, Val: 1},
				http2.Setting{ID: 0xffff, Val: 1})
			return true
		}, want: []end{answered}, reached: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			cured, bad := make(chan struct{}), make(chan *h2conn, 100)
			up.hello = func(c *h2conn) bool {
				say := tt.hello
				if tt.second != nil && c.nth == 2 {
					say = tt.second
				}
				select {
				case <-cured:
					say = nil
				default:
				}
				if c.nth == 1 || say == nil {
					c.set()
					return true
				}
				if say(c) {
					return true
				}
				bad <- c
				select {
				case <-cured:
					c.cut()
					io.Copy(io.Discard, c.tcp) // until the proxy has closed it, too
				case <-up.closing:
				}
				return false
			}
			w := newH2World(t, up, tt.settle...)
			w.ended(w.post("/first", "{}"), tt.want...)
			if tt.reached >= 0 {
				assert.Equal(t, up.requests("/first"), tt.reached)
			}
			close(cured)
			for len(bad) > 0 {
				wait(t, (<-bad).done, "the proxy knows that a connection is over")
			}
			w.undisturbed()
		})
	}
}

// An upstream that never acknowledges anything is served and listened to all the same.
func TestH2NeverAcknowledges(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	up.noAck = true
	w := newH2World(t, up)
	for range 3 {
		w.ended(w.post("/plain", "{}"), answered)
	}
	w.undisturbed()
}
