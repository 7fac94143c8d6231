package faults

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// What an upstream that speaks HTTP/1.1 can do to a request.
var h1faults = []fault[*h1request]{
	{name: "FIN", do: (*h1request).fin, reason: closedConnection},
	{name: "RST", do: (*h1request).reset, reason: "connection reset"},
	{name: "silence", do: func(r *h1request) { r.gone() }, reason: noAnswer},
	{name: "what is not HTTP", do: func(r *h1request) { r.say(hush + "\r\n\r\n"); r.pause(nil) }, reason: notHTTP},
	{name: "HTTP/2", do: func(r *h1request) { r.say("\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n"); r.pause(nil) }, reason: notHTTP},
	{name: "lines without an end, for ever", do: func(r *h1request) {
		for range 2000 {
			r.say(strings.Repeat("a", 64<<10))
		}
		r.fin()
	}, reason: notHTTP},
}

// Heads that are not what they should be, and bodies that do not fit their framing. The client is told, nothing that is no header or no
// body reaches it or the log, and it does not take a body that is too short for a whole one.
func TestH1Answers(t *testing.T) {
	t.Parallel()
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
		first   = "5\r\nfirst\r\n"
	)
	either := []end{answered, failed} // no harm in either: what must not happen is that a header is smuggled
	for _, tt := range []struct {
		name, answer string
		want         []end
		body         string
	}{
		{"status line without a version", "200 OK\r\n\r\n", []end{failed}, ""},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", either, ""},
		{"status hush", "HTTP/1.1 " + hush + "\r\n\r\n", []end{failed}, ""},
		{"status 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + hush, []end{failed}, ""},
		{"header without a colon", ok + hush + "\r\n\r\n", []end{failed}, ""},
		{"space before the colon", ok + "X-Smuggled : 1\r\nContent-Length: 0\r\n\r\n", either, ""},
		{"folded header", ok + "X-A: 1\r\n X-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", either, ""},
		{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + hush, []end{failed}, ""},
		{"unknown transfer encoding", ok + "Transfer-Encoding: gzip\r\n\r\n" + hush, []end{failed}, ""},
		{"Connection names a header", ok + "Connection: X-Smuggled\r\nX-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", []end{answered}, ""},
		{"103, then nothing", "HTTP/1.1 103 Early Hints\r\nLink: " + hush + "\r\n\r\n", []end{failed}, ""},
		{"103 for ever", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: "+strings.Repeat("a", 1000)+"\r\n\r\n", 20_000), []end{failed}, ""},
		{"a head of 64 MiB", ok + "X-A: " + strings.Repeat("a", 64<<20), []end{failed}, ""},

		{"shorter than its length", ok + "Content-Length: 10\r\n\r\nfirst", []end{broken}, "first"},
		{"longer than its length", ok + "Content-Length: 5\r\n\r\nfirst" + hush, []end{answered}, "first"},
		{"length and chunks", ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + first + "0\r\n\r\n", []end{answered, failed}, "first"},
		{"between chunks", chunked + first, []end{broken}, "first"},
		{"within a chunk", chunked + first + "6\r\nsec", []end{broken}, "firstsec"},
		{"a chunk size that is none", chunked + first + hush + "\r\n", []end{broken}, "first"},
		{"a negative chunk size", chunked + first + "-6\r\nsecond\r\n0\r\n\r\n", []end{broken}, "first"},
		{"a chunk longer than its size", chunked + "5\r\nfirst" + hush + "\r\n0\r\n\r\n", []end{broken}, "first"},
		{"an extension without an end", chunked + first + "6;" + strings.Repeat("a", 1<<20), []end{broken}, "first"},
		{"trailers", ok + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n" + first + "0\r\nX-A: 1\r\n\r\n", []end{answered}, "first"},
		{"trailers without an end", chunked + first + "0\r\n" + strings.Repeat("X-Smuggled: a\r\n", 1<<20), []end{broken}, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH1Upstream(t)
			w := watch(t, up)
			up.on("/faulty", func(r *h1request) { r.reply(tt.answer, tt.want...) })
			c := w.post("/faulty", "{}")
			switch got, _ := w.ended(c, tt.want...); got {
			case answered:
				assert.Equal(t, c.body.String(), tt.body)
			case broken:
				assert.Assert(t, strings.HasPrefix(tt.body, c.body.String()), "%q", c.body.String())
			}
			assert.Equal(t, up.requests("/faulty"), 1)
			w.bounded(100)
			w.undisturbed()
		})
	}
}
