package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// TestH2Shapes are answers that are right, in all the shapes that HTTP/2 allows. None may be taken for a fault.
func TestH2Shapes(t *testing.T) {
	t.Parallel()
	const megabyte = 1 << 20
	large := strings.Repeat("0123456789abcdef", megabyte/16)
	for _, tt := range []struct {
		name    string
		method  string // default POST
		answer  func(s *h2stream)
		status  int // default 200
		body    string
		header  http.Header // some of it
		trailer http.Header
		hints   int
	}{
		{name: "a thousand DATA frames of a byte", answer: func(s *h2stream) {
			s.head(":status", "200")
			s.many(1000, func(fr *http2.Framer) { fr.WriteData(s.id, false, []byte("x")) })
			s.finish("")
		}, body: strings.Repeat("x", 1000)},
		{name: "a thousand empty DATA frames", answer: func(s *h2stream) {
			s.head(":status", "200")
			s.send("a")
			s.many(1000, func(fr *http2.Framer) { fr.WriteData(s.id, false, nil) })
			s.finish("b")
		}, body: "ab"},
		{name: "padding in DATA", answer: func(s *h2stream) {
			s.head(":status", "200")
			s.write(func(fr *http2.Framer) {
				fr.WriteDataPadded(s.id, false, []byte("a"), make([]byte, 255))
				fr.WriteDataPadded(s.id, false, nil, make([]byte, 255))
				fr.WriteDataPadded(s.id, false, []byte("b"), []byte{})
			})
			s.finish("c")
		}, body: "abc"},
		{name: "padding and priority in HEADERS", answer: func(s *h2stream) {
			s.write(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.encode(":status", "200", "x-a", "1"), EndHeaders: true,
					PadLength: 200, Priority: http2.PriorityParam{StreamDep: s.id + 2, Exclusive: true, Weight: 255}})
			})
			s.finish("a")
		}, body: "a", header: http.Header{"X-A": {"1"}}},
		{name: "HEADERS that end the stream", answer: func(s *h2stream) { s.last(":status", "200", "x-a", "1") }, header: http.Header{"X-A": {"1"}}},
		{name: "DATA without a byte that ends the stream", answer: func(s *h2stream) { s.head(":status", "200"); s.finish("") }},
		{name: "a header block byte by byte", answer: func(s *h2stream) {
			s.write(func(fr *http2.Framer) {
				block := s.encode(":status", "200", "x-a", "a value of some length")
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: block[:1]})
				for i := range block[1:] {
					fr.WriteContinuation(s.id, i == len(block)-2, block[i+1:i+2])
				}
			})
			s.finish("a")
		}, body: "a", header: http.Header{"X-A": {"a value of some length"}}},
		{name: "a header block that begins with nothing and ends with nothing", answer: func(s *h2stream) {
			s.write(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id})
				fr.WriteContinuation(s.id, false, s.encode(":status", "200"))
				fr.WriteContinuation(s.id, true, nil)
			})
			s.finish("a")
		}, body: "a"},
		{name: "a header of 100 KiB", answer: func(s *h2stream) {
			s.head(":status", "200", "x-a", large[:100<<10])
			s.finish("a")
		}, body: "a", header: http.Header{"X-A": {large[:100<<10]}}},
		{name: "three hundred headers", answer: func(s *h2stream) {
			fields := []string{":status", "200"}
			for i := range 300 {
				fields = append(fields, "x-"+fmt.Sprint(i), large[:100])
			}
			s.head(fields...)
			s.finish("a")
		}, body: "a", header: http.Header{"X-0": {large[:100]}, "X-299": {large[:100]}}},
		{name: "repeated headers", answer: func(s *h2stream) {
			s.last(":status", "200", "x-a", "1", "x-b", "b", "x-a", "2", "x-a", "1")
		}, header: http.Header{"X-A": {"1", "2", "1"}}},
		{name: "headers with bytes beyond ASCII, tabs, and nothing", answer: func(s *h2stream) {
			s.last(":status", "200", "x-a", "a\tb", "x-b", "\xff\x80", "x-c", "")
		}, header: http.Header{"X-A": {"a\tb"}, "X-B": {"\xff\x80"}, "X-C": {""}}},
		{name: "the largest frames", answer: func(s *h2stream) { s.head(":status", "200"); s.finish(large) }, body: large},
		{name: "a declared length", answer: func(s *h2stream) {
			s.head(":status", "200", "content-length", fmt.Sprint(megabyte))
			s.finish(large)
		}, body: large, header: http.Header{"Content-Length": {fmt.Sprint(megabyte)}}},
		{name: "trailers", answer: func(s *h2stream) {
			s.head(":status", "200", "trailer", "x-a", "trailer", "x-b")
			s.send("a")
			s.last("x-a", "1", "x-b", "2")
		}, body: "a", trailer: http.Header{"X-A": {"1"}, "X-B": {"2"}}},
		{name: "trailers behind an empty body", answer: func(s *h2stream) {
			s.head(":status", "200", "trailer", "x-a")
			s.last("x-a", "1")
		}, trailer: http.Header{"X-A": {"1"}}},
		{name: "trailers that were announced and do not come", answer: func(s *h2stream) {
			s.head(":status", "200", "trailer", "x-a")
			s.finish("a")
		}, body: "a"},
		{name: "103", answer: func(s *h2stream) {
			s.head(":status", "103", "link", "</a>")
			s.head(":status", "200", "x-a", "1")
			s.finish("a")
		}, body: "a", header: http.Header{"X-A": {"1"}}, hints: 1},
		{name: "103 three times, with another in between", answer: func(s *h2stream) {
			s.head(":status", "103", "link", "</a>")
			s.head(":status", "102")
			s.head(":status", "103", "link", "</b>")
			s.head(":status", "103", "link", "</c>")
			s.finishEmpty()
		}, hints: 4},
		{name: "HEAD", method: "HEAD", answer: func(s *h2stream) { s.last(":status", "200", "content-length", "12345") },
			header: http.Header{"Content-Length": {"12345"}}},
		{name: "HEAD, ended by DATA", method: "HEAD", answer: func(s *h2stream) { s.head(":status", "200", "content-length", "12345"); s.finish("") },
			header: http.Header{"Content-Length": {"12345"}}},
		{name: "204", answer: func(s *h2stream) { s.last(":status", "204") }, status: 204},
		{name: "204, ended by DATA", answer: func(s *h2stream) { s.head(":status", "204"); s.finish("") }, status: 204},
		{name: "304", method: "GET", answer: func(s *h2stream) { s.last(":status", "304", "etag", `"a"`) }, status: 304, header: http.Header{"Etag": {`"a"`}}},
		{name: "304 with a length", method: "GET", answer: func(s *h2stream) { s.last(":status", "304", "content-length", "12345") }, status: 304},
		{name: "529", answer: func(s *h2stream) { s.head(":status", "529", "retry-after", "7"); s.finish("overloaded") }, status: 529, body: "overloaded",
			header: http.Header{"Retry-After": {"7"}}},
		{name: "RST_STREAM NO_ERROR behind the end", answer: func(s *h2stream) {
			s.head(":status", "200")
			s.finish("a")
			s.abandon(http2.ErrCodeNo)
		}, body: "a"},
		{name: "WINDOW_UPDATE and PRIORITY behind the end", answer: func(s *h2stream) {
			s.head(":status", "200")
			s.finish("a")
			s.raw(http2.FrameWindowUpdate, 0, s.id, 0, 0, 0, 1)
			s.raw(http2.FramePriority, 0, s.id, 0, 0, 0, 0, 1)
		}, body: "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.on("/shaped", func(s *h2stream) {
				s.whole()
				tt.answer(s)
			})
			w := newH2World(t, up)
			if tt.method == "" {
				tt.method = "POST"
			}
			if tt.status == 0 {
				tt.status = 200
			}
			c := w.request(tt.method, "/shaped", "")
			_, logged := w.ended(c, answered)
			assert.Equal(t, logged["status"], float64(tt.status))
			assert.Assert(t, c.body.String() == tt.body, "%d bytes", c.body.Len())
			for name, values := range tt.header {
				assert.DeepEqual(t, c.res.Header[name], values)
			}
			for name, values := range tt.trailer {
				assert.DeepEqual(t, c.res.Trailer[name], values)
			}
			assert.Equal(t, len(c.hints), tt.hints)
			w.undisturbed()
		})
	}
}

// finishEmpty answers 200 with nothing.
func (s *h2stream) finishEmpty() { s.last(":status", "200") }

// The compression of headers has a memory, on both sides, that both may shrink and grow between any two answers.
func TestH2HeaderTable(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	up.on("/tabled", func(s *h2stream) {
		s.whole()
		n := up.requests("/tabled")
		if n%3 == 0 { // what we remember of our own headers
			s.writing.Lock()
			s.encoder.SetMaxDynamicTableSize(uint32(n * 31 % 4097))
			s.writing.Unlock()
		}
		if n%5 == 0 { // what the proxy may remember of its own
			s.set(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(n * 57 % 8192)})
		}
		s.last(":status", "200", "x-same", "the same again", "x-number", fmt.Sprint(n), "x-name-"+fmt.Sprint(n%7), "seven names")
	})
	w := newH2World(t, up)
	for n := 1; n <= 60; n++ {
		c := w.post("/tabled", "{}")
		w.ended(c, answered)
		assert.DeepEqual(t, c.res.Header["X-Same"], []string{"the same again"})
		assert.DeepEqual(t, c.res.Header["X-Number"], []string{fmt.Sprint(n)})
		assert.DeepEqual(t, c.res.Header[fmt.Sprint("X-Name-", n%7)], []string{"seven names"})
	}
	assert.Equal(t, len(up.connections()), 2)
	w.undisturbed()
}
