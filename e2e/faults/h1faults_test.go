package faults

import (
	"fmt"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// h1fault is a row of the matrix for an upstream that speaks HTTP/1.1.
type h1fault struct {
	name   string
	do     func(r *h1request)
	before end // how a request ends that has no headers yet
	within end // how an answer ends that has begun
}

var h1faults = []h1fault{
	{"FIN", (*h1request).fin, failed, broken},
	{"RST", (*h1request).reset, failed, broken},
	{"silence", func(r *h1request) { r.gone() }, timedOut, silent},
	{"what is not HTTP", func(r *h1request) { r.say(hush + "\r\n\r\n"); r.pause(r.up.closing) }, failed, broken},
	{"HTTP/2", func(r *h1request) { r.say("\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n"); r.pause(r.up.closing) }, failed, broken},
	{"lines without an end, for ever", func(r *h1request) {
		for range 2000 {
			r.say(strings.Repeat("a", 64<<10))
		}
	}, failed, broken},
}

// TestH1 is the matrix: upstream × fault × moment. Every request has a connection of its own.
func TestH1(t *testing.T) {
	t.Parallel()
	for _, f := range h1faults {
		for _, m := range []moment{beforeHeaders, afterHeaders, midEvent} {
			t.Run(f.name+"/"+string(m), func(t *testing.T) {
				t.Parallel()
				up := newH1Upstream(t)
				var settings []string
				if f.before == timedOut {
					settings = []string{"timeout_secs = 1"}
				}
				w := newH1World(t, up, settings...)
				seen := make(chan struct{})
				up.on("/faulty", func(r *h1request) {
					r.whole()
					if m != beforeHeaders {
						r.stream()
					}
					if m == midEvent {
						r.send(half)
					}
					r.pause(seen)
					f.do(r)
					r.over = true
				})
				c := w.post("/faulty", "{}")
				want := f.within
				switch m {
				case beforeHeaders:
					want = f.before
				case afterHeaders:
					assert.NilError(t, c.head())
				case midEvent:
					c.expect(half)
				}
				close(seen)
				w.ended(c, want)
				assert.Equal(t, up.requests("/faulty"), 1)
				w.bounded(100)
				w.undisturbed()
			})
		}
	}
}

// What an upstream says or does on a connection that carries no request costs nobody anything.
func TestH1Idle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(r *h1request)
	}{
		{"FIN", func(r *h1request) { r.fin() }},
		{"RST", func(r *h1request) { r.reset() }},
		{"what is not HTTP", func(r *h1request) { r.say(hush) }},
		{"an answer that nobody asked for", func(r *h1request) { r.say("HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\nContent-Length: 2\r\n\r\nno") }},
		{"408", func(r *h1request) { r.say("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"); r.fin() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := newH1World(t, up)
			do := make(chan struct{})
			up.on("/last", func(r *h1request) {
				r.stream()
				r.finish(event)
				r.pause(do)
				tt.do(r)
			})
			w.ended(w.post("/last", "{}"), answered)
			descriptors := w.scrape(t)["process_open_fds"]
			close(do)
			w.reaches("process_open_fds", descriptors-1) // the proxy will not use that connection again
			w.undisturbed()
		})
	}
}

// An answer beyond the last byte of the one that was asked for is not the next one's.
func TestH1AnswerTooMany(t *testing.T) {
	t.Parallel()
	up := newH1Upstream(t)
	w := newH1World(t, up)
	up.on("/last", func(r *h1request) {
		r.whole()
		r.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + "HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\nContent-Length: 2\r\n\r\nno")
	})
	for range 5 {
		c := w.post("/last", "{}")
		w.ended(c, answered)
		assert.Equal(t, c.body.String(), "ok")
	}
	w.undisturbed()
}

// Heads that are not what they should be. The client is told, and nothing of them reaches it or the log.
func TestH1Heads(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	either := []end{answered, failed} // no harm in either: what must not happen is that a header is smuggled
	for _, tt := range []struct {
		name, answer string
		want         []end
	}{
		{"status line without a version", "200 OK\r\n\r\n", []end{failed}},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", either},
		{"HTTP/9.9", "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n", either},
		{"status hush", "HTTP/1.1 " + hush + "\r\n\r\n", []end{failed}},
		{"status 20", "HTTP/1.1 20 OK\r\n\r\n", []end{failed}},
		{"status 2000", "HTTP/1.1 2000 OK\r\n\r\n", []end{failed}},
		{"status -200", "HTTP/1.1 -200 OK\r\n\r\n", []end{failed}},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", []end{failed}},
		{"status 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + hush, []end{failed}},
		{"header without a colon", ok + hush + "\r\n\r\n", []end{failed}},
		{"header without a name", ok + ": " + hush + "\r\n\r\n", []end{failed}},
		{"space before the colon", ok + "X-Smuggled : 1\r\nContent-Length: 0\r\n\r\n", either},
		{"space in the name", ok + "X Smuggled: 1\r\nContent-Length: 0\r\n\r\n", either},
		{"header that begins with a space", ok + " X-Smuggled: 1\r\n\r\n", []end{failed}},
		{"folded header", ok + "X-A: 1\r\n X-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", either},
		{"CR in a value", ok + "X-A: 1\rX-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", either},
		{"NUL in a value", ok + "X-A: 1\x00\r\nContent-Length: 0\r\n\r\n", either},
		{"lines ended by LF", "HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 0\n\n", either},
		{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + hush, []end{failed}},
		{"two lengths in one", ok + "Content-Length: 1, 2\r\n\r\n" + hush, []end{failed}},
		{"negative length", ok + "Content-Length: -1\r\n\r\n" + hush, []end{failed}},
		{"length with a sign", ok + "Content-Length: +4\r\n\r\n" + hush, []end{failed}},
		{"length beyond 64 bits", ok + "Content-Length: 18446744073709551617\r\n\r\n" + hush, []end{failed}},
		{"unknown transfer encoding", ok + "Transfer-Encoding: gzip\r\n\r\n" + hush, []end{failed}},
		{"transfer encoding with a tab", ok + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", either},
		{"Connection names a header", ok + "Connection: X-Smuggled\r\nX-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", []end{answered}},
		{"103, then nothing", "HTTP/1.1 103 Early Hints\r\nLink: " + hush + "\r\n\r\n", []end{failed}},
		{"103 that is malformed", "HTTP/1.1 103 Early Hints\r\n" + hush + "\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", []end{failed}},
		{"103 for ever", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: "+strings.Repeat("a", 1000)+"\r\n\r\n", 20_000), []end{failed}},
		{"a head of 64 MiB", ok + "X-A: " + strings.Repeat("a", 64<<20), []end{failed}},
		{"a million headers", ok + strings.Repeat("X-A: a\r\n", 4_000_000), []end{failed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := newH1World(t, up)
			up.on("/faulty", func(r *h1request) { r.reply(tt.answer, tt.want) })
			w.ended(w.post("/faulty", "{}"), tt.want...)
			assert.Equal(t, up.requests("/faulty"), 1)
			w.bounded(100)
			w.undisturbed()
		})
	}
}

// Bodies that do not fit their framing. A client must not take one that is too short for a whole one.
func TestH1Bodies(t *testing.T) {
	t.Parallel()
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
		first   = "5\r\nfirst\r\n"
	)
	for _, tt := range []struct {
		name, answer string
		want         []end
		body         string
	}{
		{"shorter than its length", ok + "Content-Length: 10\r\n\r\nfirst", []end{broken}, "first"},
		{"nothing of its length", ok + "Content-Length: 10\r\n\r\n", []end{broken}, ""},
		{"longer than its length", ok + "Content-Length: 5\r\n\r\nfirst" + hush, []end{answered}, "first"},
		{"a body of 204", "HTTP/1.1 204 No Content\r\n\r\n" + hush, []end{answered}, ""},
		{"a length of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nfirst", []end{answered}, ""},
		{"a body of 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nfirst", []end{answered}, ""},
		{"until the end of the connection", ok + "Connection: close\r\n\r\nfirst", []end{answered}, "first"},
		{"length and chunks", ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + first + "0\r\n\r\n", []end{answered, failed}, "first"},
		{"between chunks", chunked + first, []end{broken}, "first"},
		{"within a chunk", chunked + first + "6\r\nsec", []end{broken}, "firstsec"},
		{"behind a chunk's size", chunked + first + "6\r\n", []end{broken}, "first"},
		{"within a chunk's size", chunked + first + "6", []end{broken}, "first"},
		{"behind the last chunk", chunked + first + "0\r\n", []end{broken}, "first"},
		{"within the trailers", chunked + first + "0\r\nX-Smuggled: 1\r\n", []end{broken}, "first"},
		{"a chunk size that is none", chunked + first + hush + "\r\n", []end{broken}, "first"},
		{"a negative chunk size", chunked + first + "-6\r\nsecond\r\n0\r\n\r\n", []end{broken}, "first"},
		{"a chunk size beyond 64 bits", chunked + first + "fffffffffffffffff\r\nsecond\r\n0\r\n\r\n", []end{broken}, "first"},
		{"a chunk size of 2⁶³", chunked + first + "8000000000000000\r\nsecond\r\n0\r\n\r\n", []end{broken}, "firstsecond\r\n0\r\n\r\n"},
		{"a chunk size of 0x6", chunked + first + "0x6\r\nsecond\r\n0\r\n\r\n", []end{broken}, "first"},
		{"an empty chunk size", chunked + first + "\r\nsecond\r\n0\r\n\r\n", []end{broken}, "first"},
		{"a chunk longer than its size", chunked + "5\r\nfirst" + hush + "\r\n0\r\n\r\n", []end{broken}, "first"},
		{"a chunk shorter than its size", chunked + "9\r\nfirst\r\n0\r\n\r\n", []end{broken}, "first\r\n0\r"},
		{"a chunk size of four gigabytes of zeros", chunked + first + strings.Repeat("0", 1<<20) + "5\r\nfirst\r\n0\r\n\r\n", []end{broken}, "first"},
		{"an extension without an end", chunked + first + "6;" + strings.Repeat("a", 1<<20), []end{broken}, "first"},
		{"extensions", chunked + "5;a=b\r\nfirst\r\n0;c\r\n\r\n", []end{answered}, "first"},
		{"trailers", ok + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n" + first + "0\r\nX-A: 1\r\n\r\n", []end{answered}, "first"},
		{"a trailer that is malformed", chunked + first + "0\r\n" + hush + "\r\n\r\n", []end{broken}, "first"},
		{"trailers without an end", chunked + first + "0\r\n" + strings.Repeat("X-Smuggled: a\r\n", 1<<20), []end{broken}, "first"},
		{"extensions without an end, byte by byte", chunked + strings.Repeat("1;"+strings.Repeat("a", 3000)+"\r\na\r\n", 1000), []end{broken}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := newH1World(t, up)
			up.on("/faulty", func(r *h1request) { r.reply(tt.answer, tt.want) })
			c := w.post("/faulty", "{}")
			switch got, _ := w.ended(c, tt.want...); got {
			case answered:
				assert.Equal(t, c.body.String(), tt.body)
			case broken:
				assert.Assert(t, strings.HasPrefix(tt.body, c.body.String()) || tt.body == "", "%q", c.body.String())
			}
			w.bounded(100)
			w.undisturbed()
		})
	}
}

// An answer to a request that the upstream does not want to read on: it arrives, and the upload ends.
func TestH1EarlyAnswer(t *testing.T) {
	t.Parallel()
	const reason = `{"type":"error","error":{"type":"request_too_large"}}`
	for _, then := range []string{"FIN", "RST", "nothing"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := newH1World(t, up)
			received := make(chan struct{})
			up.on("/upload", func(r *h1request) {
				r.say(fmt.Sprintf("HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%s", len(reason), reason))
				r.pause(received)
				switch then {
				case "FIN":
					r.fin()
				case "RST":
					r.reset()
				default:
					r.pause(up.closing)
				}
				r.over = true
			})
			c := w.post("/upload", upload(10<<20))
			w.ended(c, answered)
			assert.Equal(t, c.res.StatusCode, 413)
			assert.Equal(t, c.body.String(), reason)
			close(received)
			w.reaches("proxy_held_body_bytes", 0)
			w.undisturbed()
		})
	}
}

// Timeouts are repeated as often as the configuration says, with the same request, and no other fault is.
func TestH1Retries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(r *h1request, n int)
		want end
		sent int
	}{
		{"silence, for ever", func(r *h1request, _ int) { r.gone() }, timedOut, 3},
		{"silence, once", func(r *h1request, n int) {
			if n == 1 {
				r.gone()
				return
			}
			r.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}, answered, 2},
		{"silence, then FIN", func(r *h1request, n int) {
			if n == 1 {
				r.gone()
				return
			}
			r.fin()
		}, failed, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := newH1World(t, up, "timeout_secs = 1", "retries = 2")
			up.on("/faulty", func(r *h1request) {
				r.whole()
				tt.do(r, up.requests("/faulty"))
			})
			c := w.post("/faulty", upload(100<<10))
			_, logged := w.ended(c, tt.want)
			assert.Equal(t, logged["attempts"], float64(tt.sent))
			assert.Equal(t, up.requests("/faulty"), tt.sent)
			for _, r := range up.all() {
				if r.path == "/faulty" {
					assert.Assert(t, r.body == upload(100<<10), "an attempt has another body")
				}
			}
			w.undisturbed()
		})
	}
}
