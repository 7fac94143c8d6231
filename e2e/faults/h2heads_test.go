package faults

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// row makes a fault of a header block that ends its stream.
func row(name string, hits scope, fields ...string) h2fault {
	return h2fault{name: name, hits: hits, do: func(s *h2stream) { s.last(fields...) }}
}

// A malformed answer costs its own stream (RFC 9113 section 8.1.1), and nothing in it is ever taken for a header of ours.
var h2heads = []h2fault{
	row("no header at all", theStream),
	row("no :status", theStream, "content-type", "text/plain"),
	row(":status twice", theStream, ":status", "200", ":status", "200"),
	row(":status empty", theStream, ":status", ""),
	row(":status not a number", theStream, ":status", "abc"),
	row(":status 0", theStream, ":status", "0"),
	row(":status 99", theStream, ":status", "99"),
	row(":status 099", theStream, ":status", "099"),
	row(":status 1000", theStream, ":status", "1000"),
	row(":status -200", theStream, ":status", "-200"),
	row(":status +200", anybody, ":status", "+200"),
	row(":status 0200", anybody, ":status", "0200"),
	row(":status with a reason", theStream, ":status", "200 OK"),
	row(":status with a line of its own", theStream, ":status", "200\r\nx-smuggled: 1"),
	row(":status 101", theStream, ":status", "101"),
	row(":status behind a header", theStream, "x-a", "1", ":status", "200"),
	row("unknown pseudo-header", theStream, ":status", "200", ":smuggled", "1"),
	row("pseudo-header of requests", theStream, ":status", "200", ":path", "/"),
	row("name in capitals", theStream, ":status", "200", "X-Smuggled", "1"),
	row("name empty", theStream, ":status", "200", "", "1"),
	row("name with a space", theStream, ":status", "200", "x-smuggled ", "1"),
	row("name with a colon", theStream, ":status", "200", "x-smuggled:", "1"),
	row("name with a line break", theStream, ":status", "200", "x-a\r\nx-smuggled", "1"),
	row("name with a NUL", theStream, ":status", "200", "x-smuggled\x00", "1"),
	row("value with CR LF", theStream, ":status", "200", "x-a", "1\r\nx-smuggled: 1"),
	row("value with LF", theStream, ":status", "200", "x-a", "1\nx-smuggled: 1"),
	row("value with CR", theStream, ":status", "200", "x-a", "1\rx-smuggled: 1"),
	row("value with CR LF CR LF", theStream, ":status", "200", "x-a", "1\r\n\r\nHTTP/1.1 200 OK\r\nx-smuggled: 1\r\n\r\n"),
	row("value with NUL", theStream, ":status", "200", "x-a", "1\x00"),
	row("value with spaces around", anybody, ":status", "200", "x-a", " 1 "),
	row("content-length not a number", anybody, ":status", "200", "content-length", "many"),
	row("content-length negative", anybody, ":status", "200", "content-length", "-1"),
	row("content-length beyond 64 bits", anybody, ":status", "200", "content-length", "18446744073709551616"),
	{name: "content-length and no body", hits: theStream, before: []end{failed, broken}, do: func(s *h2stream) { s.last(":status", "200", "content-length", "5") }},
	row("two content-lengths", anybody, ":status", "200", "content-length", "0", "content-length", "5"),
	row("connection: close", anybody, ":status", "200", "connection", "close"),
	row("connection names a header", anybody, ":status", "200", "connection", "x-smuggled", "x-smuggled", "1"),
	row("transfer-encoding", anybody, ":status", "200", "transfer-encoding", "chunked"),
	row("upgrade", anybody, ":status", "200", "connection", "upgrade", "upgrade", "websocket"),
	row("103 that ends the stream", theStream, ":status", "103"),
	{name: "DATA before HEADERS", hits: atLeastStream, do: func(s *h2stream) { s.raw(http2.FrameData, 0, s.id, []byte(hush)...) }},
	{name: "DATA after 103", hits: atLeastStream, do: func(s *h2stream) {
		s.head(":status", "103")
		s.raw(http2.FrameData, 0, s.id, []byte(hush)...)
	}},
	{name: "header of 16 MiB, never finished", hits: atLeastStream, do: func(s *h2stream) {
		s.raw(http2.FrameHeaders, 0, s.id, 0x88, 0x00, 0x01, 'a', 0x7f, 0x81, 0xff, 0xff, 0x07) // a value of 16 MiB begins
		s.many(1<<10, func(fr *http2.Framer) { fr.WriteContinuation(s.id, false, make([]byte, 16<<10)) })
		s.fin()
	}},
}

// TestH2Heads is the matrix for malformed heads.
func TestH2Heads(t *testing.T) {
	t.Parallel()
	for _, f := range h2heads {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.strike(t, beforeHeaders)
		})
	}
}

var h2trailers = []h2fault{
	{name: "trailers that do not end the stream", hits: atLeastStream, do: func(s *h2stream) { s.head("x-a", "1") }},
	{name: "a second answer", hits: atLeastStream, do: func(s *h2stream) { s.head(":status", "200") }},
	{name: "103 after the answer", hits: atLeastStream, do: func(s *h2stream) { s.head(":status", "103") }},
	row(":status in trailers", theStream, ":status", "200"),
	row("unknown pseudo-header in trailers", theStream, ":smuggled", "1"),
	row("name in capitals in trailers", theStream, "X-Smuggled", "1"),
	row("name with a space in trailers", theStream, "x-smuggled ", "1"),
	row("name with a line break in trailers", theStream, "x-a\r\nx-smuggled", "1"),
	row("value with CR LF in trailers", theStream, "x-a", "1\r\nx-smuggled: 1"),
	row("value with NUL in trailers", theStream, "x-a", "1\x00"),
	row("framing in trailers", anybody, "content-length", "3", "transfer-encoding", "chunked", "trailer", "x-a"),
	row("trailers that nobody announced", nobody, "x-a", "1"),
	row("no field in trailers", nobody),
}

// TestH2Trailers is the matrix for malformed ends.
func TestH2Trailers(t *testing.T) {
	t.Parallel()
	for _, f := range h2trailers {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.strikeEnd(t)
		})
	}
}

// strikeEnd is strike for a fault in the place of the answer's end, after a whole event.
func (f h2fault) strikeEnd(t *testing.T) {
	faulty, sibling := f.after(midEvent)
	up := newH2Upstream(t)
	struck := make(chan struct{})
	up.on("/sibling", func(s *h2stream) {
		s.stream()
		s.send(event)
		s.pause(struck)
		s.finish(event)
	})
	up.on("/faulty", func(s *h2stream) {
		s.stream()
		s.send(event)
		f.do(s)
		if !s.ok(func() bool { return s.closed }) {
			s.finish(event)
		}
	})
	w := newH2World(t, up)
	s := w.open("/sibling")
	c := w.open("/faulty")
	got, _ := w.ended(c, faulty...)
	if got == answered {
		assert.Assert(t, strings.HasPrefix(c.body.String(), event))
	}
	close(struck)
	w.ended(s, sibling...)
	w.undisturbed()
}

// Answers whose body is not as long as they say. A client must not take one that is too short for a whole one, and gets nothing of what
// is too long.
func TestH2Lengths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		method string
		answer func(s *h2stream)
		want   []end
		body   string
	}{
		{"too short", "POST", func(s *h2stream) { s.head(":status", "200", "content-length", "10"); s.finish("first") }, []end{broken}, "first"},
		{"too short by all", "POST", func(s *h2stream) { s.head(":status", "200", "content-length", "10"); s.finish("") }, []end{broken}, ""},
		{"too short, with trailers", "POST", func(s *h2stream) {
			s.head(":status", "200", "content-length", "10")
			s.send("first")
			s.last("x-a", "1")
		}, []end{broken}, "first"},
		{"too short, then RST_STREAM NO_ERROR", "POST", func(s *h2stream) {
			s.head(":status", "200", "content-length", "10")
			s.send("first")
			s.abandon(http2.ErrCodeNo)
		}, []end{broken}, "first"},
		{"too long", "POST", func(s *h2stream) { s.head(":status", "200", "content-length", "5"); s.finish("first" + hush) }, []end{broken, answered}, "first"},
		{"too long, in another frame", "POST", func(s *h2stream) {
			s.head(":status", "200", "content-length", "5")
			s.send("first")
			s.finish(hush)
		}, []end{broken, answered}, "first"},
		{"a body of an answer to HEAD", "HEAD", func(s *h2stream) { s.head(":status", "200", "content-length", "5"); s.finish("first") }, []end{answered, broken}, ""},
		{"a body of 204", "POST", func(s *h2stream) { s.head(":status", "204"); s.finish("first") }, []end{answered, broken}, ""},
		{"a body of 304", "GET", func(s *h2stream) { s.head(":status", "304"); s.finish("first") }, []end{answered, broken}, ""},
		{"a length of 204", "POST", func(s *h2stream) { s.last(":status", "204", "content-length", "5") }, []end{answered, failed}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.on("/faulty", func(s *h2stream) {
				s.whole()
				tt.answer(s)
			})
			w := newH2World(t, up)
			c := w.request(tt.method, "/faulty", "")
			switch got, _ := w.ended(c, tt.want...); got {
			case answered:
				assert.Equal(t, c.body.String(), tt.body)
			case broken:
				assert.Assert(t, strings.HasPrefix(tt.body, c.body.String()), "%q", c.body.String())
			}
			w.undisturbed()
		})
	}
}
