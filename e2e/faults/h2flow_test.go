package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// report answers with what is to be known about a body that was uploaded.
func (s *h2stream) report(want string) {
	s.head(":status", "200")
	s.finish(fmt.Sprint(s.body.Len(), s.body.String() == want))
}

// An upload through windows that open slowly arrives whole, whatever their sizes. The referee sees to it that no window is overdrawn.
func TestH2UploadThroughWindows(t *testing.T) {
	t.Parallel()
	window := func(n uint32) []http2.Setting { return []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: n}} }
	for _, tt := range []struct {
		name     string
		size     int
		settings []http2.Setting
		open     func(s *h2stream) // opens windows until the upload is complete
	}{
		{"10 MiB, 64 KiB ahead", 10 << 20, nil, func(s *h2stream) {
			for s.exhausted() {
				s.grant(0, 16<<10)
				s.grant(s.id, 16<<10)
			}
		}},
		{"byte by byte", 200, window(0), func(s *h2stream) {
			for s.exhausted() {
				s.grant(s.id, 1)
			}
		}},
		{"the connection's window byte by byte", 65535 + 200, window(1 << 20), func(s *h2stream) {
			for s.exhausted() {
				s.grant(0, 1)
			}
		}},
		{"by settings alone", 65535, window(0), func(s *h2stream) {
			for n := uint32(10_000); s.exhausted(); n += 10_000 {
				s.set(window(n)...)
			}
		}},
		{"a window that becomes negative", 300 << 10, nil, func(s *h2stream) {
			s.exhausted()
			s.set(window(100)...) // 65435 below zero
			s.sync()
			s.grant(0, 1<<20)
			s.grant(s.id, 65435+1000)
			for s.exhausted() {
				s.grant(s.id, 50_000)
			}
		}},
		{"a window opened twice at once", 300 << 10, nil, func(s *h2stream) {
			s.exhausted()
			s.grant(0, 1<<20)
			s.grant(s.id, 1<<17)
			s.set(window(1 << 19)...)
		}},
		{"frames of a megabyte", 3 << 20, []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, {ID: http2.SettingInitialWindowSize, Val: 3 << 20}}, func(s *h2stream) {
			s.grant(0, 3<<20)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.tight = true
			up.settings = tt.settings
			text := upload(tt.size)
			up.on("/upload", func(s *h2stream) {
				tt.open(s)
				if s.whole() {
					s.report(text)
				}
			})
			w := newH2World(t, up, "max_body_bytes = 10485760")
			w.beside.expect("") // it sent its few bytes through the first window
			c := w.post("/upload", text)
			w.ended(c, answered)
			assert.Equal(t, c.body.String(), fmt.Sprint(len(text), true))
			assert.Equal(t, up.requests("/upload"), 1)
			up.on("/after", func(s *h2stream) { s.grantAll() })
			w.undisturbed()
		})
	}
}

// exhausted waits until the proxy has used all that it may send, or has sent everything; it reports the former.
func (s *h2stream) exhausted() bool {
	s.until("the window is used", func() bool { return s.complete || s.cancelled != nil || s.mayReceive <= 0 || s.allowed <= 0 })
	return s.ok(func() bool { return !s.complete && s.cancelled == nil && !s.over })
}

// grantAll answers a request without having it wait for a window.
func (s *h2stream) grantAll() {
	s.grant(0, 1<<20)
	s.grant(s.id, 1<<20)
	s.whole()
	s.head(":status", "200")
	s.finish("ok")
}

// An upload that may not go on does not hold up anybody else on its connection, and when its time is over it is given up.
func TestH2UploadBlocked(t *testing.T) {
	t.Parallel()
	for _, whose := range []string{"stream's", "connection's"} {
		for _, retries := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s window, %d retries", whose, retries), func(t *testing.T) {
				t.Parallel()
				up := newH2Upstream(t)
				up.tight = true
				up.on("/blocked", func(s *h2stream) {
					if up.requests("/blocked") == 2 { // the second attempt is let through
						s.grant(0, 1<<20)
						s.grant(s.id, 1<<20)
						s.whole()
						s.report(upload(300 << 10))
						return
					}
					if whose == "connection's" {
						s.grant(s.id, 1<<20)
					}
					if code, ok := s.gone(); ok && code != http2.ErrCodeCancel {
						t.Errorf("an upload is given up by %v", code)
					}
				})
				w := newH2World(t, up, "timeout_secs = 2", fmt.Sprint("retries = ", retries))
				c := w.post("/blocked", upload(300<<10))
				up.await("/blocked", 1)
				s := up.find("/blocked")
				s.until("the window is used", func() bool { return s.body.Len() == 65535 })
				for range 3 {
					w.ended(w.request("GET", "/small", ""), answered) // has no body, so it needs no window
				}
				if retries == 0 {
					w.ended(c, timedOut)
				} else {
					_, logged := w.ended(c, answered)
					assert.Equal(t, logged["attempts"], 2.0)
					assert.Equal(t, c.body.String(), fmt.Sprint(300<<10, true))
				}
				assert.Equal(t, up.requests("/blocked"), retries+1)
				up.on("/after", (*h2stream).grantAll)
				w.undisturbed()
			})
		}
	}
}

// An upstream may answer before it has read the request, and then want no more of it (RFC 9113 section 8.1).
func TestH2EarlyAnswer(t *testing.T) {
	t.Parallel()
	const reason = `{"type":"error","error":{"type":"request_too_large"}}`
	for _, tt := range []struct {
		name   string
		answer func(s *h2stream)
		want   end
	}{
		{"413, then RST_STREAM NO_ERROR", func(s *h2stream) {
			s.head(":status", "413")
			s.finish(reason)
			s.abandon(http2.ErrCodeNo)
		}, answered},
		{"413, RST_STREAM NO_ERROR at once", func(s *h2stream) {
			s.write(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.encode(":status", "413"), EndHeaders: true})
				fr.WriteData(s.id, true, []byte(reason))
				fr.WriteRSTStream(s.id, http2.ErrCodeNo)
			})
			s.change(func() { s.closed, s.abandoned = true, true })
		}, answered},
		{"413 and no more windows", func(s *h2stream) {
			s.head(":status", "413")
			s.finish(reason)
			s.until("the proxy ends the stream", func() bool { return s.complete || s.cancelled != nil })
		}, answered},
		{"413 piece by piece, with windows", func(s *h2stream) {
			s.head(":status", "413")
			for i := range reason {
				s.send(reason[i : i+1])
				s.grant(0, 100)
				s.grant(s.id, 100)
			}
			s.finish("")
			s.until("the proxy ends the stream", func() bool { return s.complete || s.cancelled != nil })
		}, answered},
		{"413, then an error within it", func(s *h2stream) {
			s.head(":status", "413")
			s.send(reason)
			s.abandon(http2.ErrCodeInternal)
		}, broken},
		{"413, RST_STREAM NO_ERROR instead of its end", func(s *h2stream) {
			s.head(":status", "413")
			s.send(reason)
			s.abandon(http2.ErrCodeNo)
		}, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.tight = true
			up.on("/upload", func(s *h2stream) {
				s.exhausted()
				tt.answer(s)
			})
			w := newH2World(t, up)
			c := w.post("/upload", upload(1<<20))
			w.ended(c, tt.want)
			assert.Equal(t, c.res.StatusCode, 413)
			assert.Equal(t, c.body.String(), reason)
			w.reaches("proxy_held_body_bytes", 0)
			up.on("/after", (*h2stream).grantAll)
			w.undisturbed()
			assert.Equal(t, len(up.connections()), 2, "the connection goes on")
		})
	}
}

// A client that leaves takes its upload with it, and nothing else.
func TestH2ClientLeavesUpload(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close", "half-close", "reset"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.tight = true
			up.on("/upload", func(s *h2stream) {
				if code, ok := s.gone(); ok && code != http2.ErrCodeCancel {
					t.Errorf("the upload is given up by %v", code)
				}
			})
			w := newH2World(t, up)
			c := w.post("/upload", upload(1<<20))
			up.await("/upload", 1)
			s := up.find("/upload")
			s.exhausted()
			c.leave(how)
			w.ended(c, left)
			assert.Assert(t, s.until("the upload is given up", func() bool { return s.cancelled != nil }))
			w.reaches("proxy_held_body_bytes", 0)
			up.on("/after", (*h2stream).grantAll)
			w.undisturbed()
			assert.Equal(t, len(up.connections()), 2, "the connection goes on")
		})
	}
}

// What the proxy takes from the connection's window it gives back, also for padding, and for what came for a client that had left. Else
// the connection would stand still sooner or later.
func TestH2WindowComesBack(t *testing.T) {
	t.Parallel()
	const rounds, size = 40, 64 << 10
	for _, tt := range []struct {
		name string
		send func(s *h2stream) // sends size bytes
		want end
	}{
		{"answers", func(s *h2stream) { s.finish(strings.Repeat("x", size)) }, answered},
		{"padding", func(s *h2stream) {
			for range size / 257 {
				s.until("the proxy opens a window", func() bool {
					ok := s.window >= 257 && s.maySend >= 257
					if ok {
						s.window, s.maySend = s.window-257, s.maySend-257
					}
					return ok
				})
				s.write(func(fr *http2.Framer) { fr.WriteDataPadded(s.id, false, []byte("x"), make([]byte, 255)) })
			}
			s.finish("x")
		}, answered},
		{"answers for nobody", func(s *h2stream) {
			s.send(event)
			s.gone()
			for range size / 16384 { // it was on the wire already, so to speak
				s.until("the connection has a window", func() bool {
					ok := s.window >= 16384
					if ok {
						s.window -= 16384
					}
					return ok
				})
				s.raw(http2.FrameData, 0, s.id, make([]byte, 16384)...)
			}
			s.sync()
		}, leftWithin},
		{"answers that are reset", func(s *h2stream) {
			s.send(strings.Repeat("x", size))
			s.abandon(http2.ErrCodeInternal)
		}, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			w := newH2World(t, up)
			for i := range rounds {
				path := fmt.Sprint("/round-", i)
				done := make(chan struct{})
				up.on(path, func(s *h2stream) {
					defer close(done)
					s.whole()
					s.stream()
					tt.send(s)
				})
				c := w.post(path, "{}")
				if tt.want == leftWithin {
					c.expect(event)
					c.abort()
				}
				w.ended(c, tt.want)
				wait(t, done, "the upstream has said everything")
			}
			c := up.connections()[1]
			assert.Assert(t, c.sync())
			missing, granted := c.missing()
			w.undisturbed()
			if granted/2 > rounds*size {
				t.Skipf("the connection's window is so large (%d bytes) that nothing can be said about it", granted)
			}
			assert.Assert(t, missing <= granted/2, "of %d bytes that were sent, %d have not come back", rounds*size, missing)
		})
	}
}

// missing returns how much of the window that the proxy once granted us it has not given back.
func (c *h2conn) missing() (missing, granted int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted - c.window, c.granted
}

// However large the window, it comes back.
func TestH2LargeWindowComesBack(t *testing.T) {
	if underRace() {
		t.Skip("takes half a gigabyte, which takes too long under the race detector")
	}
	up := newH2Upstream(t)
	done := make(chan struct{})
	up.on("/for-nobody", func(s *h2stream) {
		defer close(done)
		s.stream()
		s.send(event)
		s.gone()
		_, granted := s.missing()
		n := int(granted/2/16384) + 64
		s.change(func() { s.window -= int64(n) * 16384 })
		s.many(n, func(fr *http2.Framer) { fr.WriteData(s.id, false, make([]byte, 16384)) })
		s.sync()
	})
	w := newH2World(t, up)
	c := w.open("/for-nobody")
	c.abort()
	w.ended(c, leftWithin)
	wait(t, done, "the upstream has said everything")
	missing, granted := up.connections()[1].missing()
	assert.Assert(t, missing <= granted/2, "%d of %d bytes have not come back", missing, granted)
	w.bounded(100)
	w.undisturbed()
}
