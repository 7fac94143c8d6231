package faults

import (
	"strings"

	"golang.org/x/net/http2"
)

// The faults of an HTTP/1.1 upstream within a request.
var h1faults = []fault[*h1request]{
	{name: "FIN", do: (*h1request).fin, reason: closedConnection},
	{name: "RST", do: (*h1request).reset, reason: "connection reset"},
	{name: "silence", do: func(r *h1request) { r.gone() }, reason: noAnswer},
	{name: "bytes that are not HTTP", do: func(r *h1request) { r.say(hush + "\r\n\r\n"); r.pause(nil) }, reason: notHTTP},
	{name: "HTTP/2", do: func(r *h1request) { r.say("\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n"); r.pause(nil) }, reason: notHTTP},
	{name: "endless header lines", do: func(r *h1request) {
		for range 2000 {
			r.say(strings.Repeat("a", 64<<10))
		}
		r.fin()
	}, reason: notHTTP},
}

func code(c http2.ErrCode) func(*h2stream) { return func(s *h2stream) { s.abandon(c) } }

// never is the number of a stream that the proxy has not opened.
const never = 0x7ffffff1

// The faults of an HTTP/2 upstream within a request.
var h2faults = []fault[*h2stream]{
	{name: "RST_STREAM NO_ERROR", do: code(http2.ErrCodeNo), reason: "reset the HTTP/2 stream (NO_ERROR)"},
	{name: "RST_STREAM INTERNAL_ERROR", do: code(http2.ErrCodeInternal), reason: "reset the HTTP/2 stream (INTERNAL_ERROR)"},
	{name: "RST_STREAM CANCEL", do: code(http2.ErrCodeCancel), reason: "reset the HTTP/2 stream (CANCEL)"},
	{name: "RST_STREAM PROTOCOL_ERROR", do: code(http2.ErrCodeProtocol), reason: "reset the HTTP/2 stream (PROTOCOL_ERROR)"},
	{name: "RST_STREAM ENHANCE_YOUR_CALM", do: code(http2.ErrCodeEnhanceYourCalm), reason: "reset the HTTP/2 stream (ENHANCE_YOUR_CALM)"},
	{name: "RST_STREAM HTTP_1_1_REQUIRED", do: code(http2.ErrCodeHTTP11Required), reason: "reset the HTTP/2 stream (HTTP_1_1_REQUIRED)"},
	{name: "RST_STREAM with an unknown code", do: code(0xfeed), reason: "reset the HTTP/2 stream (unknown error code 0xfeed)"},
	{name: "RST_STREAM REFUSED_STREAM", do: code(http2.ErrCodeRefusedStream), sent: 6, reason: "the upstream refused the request"},

	{name: "FIN", do: func(s *h2stream) { s.fin() }, connection: true, reason: closedConnection},
	{name: "FIN without TLS's close_notify", do: func(s *h2stream) { s.cut() }, connection: true, reason: closedConnection},
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
