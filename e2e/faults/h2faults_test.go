package faults

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

func code(c http2.ErrCode) func(*h2stream) { return func(s *h2stream) { s.abandon(c) } }

// never is a stream that the proxy has not opened.
const never = 0x7ffffff1

// What an edge that speaks HTTP/2 can do to a request.
var h2faults = []fault[*h2stream]{
	{name: "RST_STREAM NO_ERROR", do: code(http2.ErrCodeNo), reason: "reset the HTTP/2 stream (NO_ERROR)"},
	{name: "RST_STREAM INTERNAL_ERROR", do: code(http2.ErrCodeInternal), reason: "reset the HTTP/2 stream (INTERNAL_ERROR)"},
	{name: "RST_STREAM CANCEL", do: code(http2.ErrCodeCancel), reason: "reset the HTTP/2 stream (CANCEL)"},
	{name: "RST_STREAM PROTOCOL_ERROR", do: code(http2.ErrCodeProtocol), reason: "reset the HTTP/2 stream (PROTOCOL_ERROR)"},
	{name: "RST_STREAM ENHANCE_YOUR_CALM", do: code(http2.ErrCodeEnhanceYourCalm), reason: "reset the HTTP/2 stream (ENHANCE_YOUR_CALM)"},
	{name: "RST_STREAM HTTP_1_1_REQUIRED", do: code(http2.ErrCodeHTTP11Required), reason: "reset the HTTP/2 stream (HTTP_1_1_REQUIRED)"},
	{name: "RST_STREAM with an unknown code", do: code(0xfeed), reason: "reset the HTTP/2 stream (code 65261)"},
	{name: "RST_STREAM REFUSED_STREAM", do: code(http2.ErrCodeRefusedStream), sent: 6, reason: "the upstream refused the request"},

	{name: "FIN", do: func(s *h2stream) { s.fin() }, connection: true, reason: closedConnection},
	{name: "FIN without a word of TLS", do: func(s *h2stream) { s.cut() }, connection: true, reason: closedConnection},
	{name: "RST", do: func(s *h2stream) { s.reset() }, connection: true, reason: "connection reset"},
	{name: "half a frame and FIN", do: func(s *h2stream) { s.bytes("\x00\x00\x63\x00\x00"); s.fin() }, connection: true, reason: closedConnection},
	{name: "GOAWAY that covers the stream, then FIN", do: func(s *h2stream) { s.goAway(s.id, http2.ErrCodeNo); s.fin() }, connection: true, reason: leftUs},
	{name: "GOAWAY with an error, then FIN", do: func(s *h2stream) { s.goAway(s.id, http2.ErrCodeInternal); s.fin() }, connection: true, reason: leftUs},
	{name: "GOAWAY with an error, then RST", do: func(s *h2stream) { s.goAway(never, http2.ErrCodeEnhanceYourCalm); s.reset() }, connection: true, reason: leftUs},

	{name: "HTTP/1.1", do: func(s *h2stream) { s.bytes("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n") }, connection: true, reason: notHTTP},
	{name: "a frame that is too large", do: func(s *h2stream) {
		s.write(func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameData, 0, s.id, make([]byte, 1<<20+1)) })
	}, connection: true, reason: notHTTP},
	{name: "headers that do not unpack", do: func(s *h2stream) {
		s.write(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte{0x88, 0xfe}, EndHeaders: true, EndStream: true})
		})
	}, connection: true, reason: notHTTP},

	{name: "silence", do: func(s *h2stream) { s.gone() }, reason: noAnswer},
}

// Answers that are not as long as they say, of which a client must not take one that is too short for a whole one; and heads that a
// server of HTTP/1.1 could not send like that.
func TestH2Answers(t *testing.T) {
	t.Parallel()
	long := func(s *h2stream) { s.head(":status", "200", "content-length", "10") }
	for _, tt := range []struct {
		name   string
		answer func(s *h2stream)
		want   []end
	}{
		{"too short", func(s *h2stream) { long(s); s.finish("first") }, []end{broken}},
		{"too short, with trailers", func(s *h2stream) { long(s); s.send("first"); s.last("x-a", "1") }, []end{broken}},
		{"too short, then RST_STREAM NO_ERROR", func(s *h2stream) { long(s); s.send("first"); s.abandon(http2.ErrCodeNo) }, []end{broken}},
		{"too long", func(s *h2stream) { long(s); s.finish("first-10-b" + hush) }, []end{broken, answered}},
		{"too long, in another frame", func(s *h2stream) { long(s); s.send("first-10-b"); s.finish(hush) }, []end{broken, answered}},
		{"a length of 204", func(s *h2stream) { s.last(":status", "204", "content-length", "5") }, []end{answered}},
		{"a length of 304", func(s *h2stream) { s.last(":status", "304", "content-length", "5") }, []end{answered}},
		{"status 1000", func(s *h2stream) { s.last(":status", "1000") }, []end{failed}},
		{"status 99", func(s *h2stream) { s.last(":status", "99") }, []end{failed}},
		{"status 101", func(s *h2stream) { s.last(":status", "101") }, []end{failed}},
		{"status in the trailers", func(s *h2stream) { s.stream(); s.last(":status", "200") }, []end{broken}},
		{"Connection names a header", func(s *h2stream) { s.last(":status", "200", "connection", "x-smuggled", "x-smuggled", "1") }, []end{answered, failed}},
		{"a line break in a value", func(s *h2stream) { s.last(":status", "200", "x-a", "1\r\nx-smuggled: 1") }, []end{failed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.on("/faulty", func(s *h2stream) {
				s.whole()
				tt.answer(s)
			})
			w := watch(t, up)
			c := w.post("/faulty", "{}")
			if got, _ := w.ended(c, tt.want...); got != failed {
				assert.Assert(t, strings.HasPrefix("first-10-b", c.body.String()), "%q", c.body.String())
			}
			w.undisturbed()
		})
	}
}
