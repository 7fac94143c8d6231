package faults

import (
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// scope says whom a fault hits.
type scope string

const (
	theStream     scope = "the stream"
	atLeastStream scope = "at least the stream" // and the connection, if the proxy likes
	theConnection scope = "the connection"
	nobody        scope = "nobody"
	anybody       scope = "anybody" // RFC 9113 leaves it open, or letting it pass does no harm: whatever happens must be told honestly
)

// moment says how far the answer is when the fault happens.
type moment string

const (
	beforeHeaders moment = "before the headers"
	afterHeaders  moment = "after the headers"
	midEvent      moment = "within an event"
	idle          moment = "on an idle connection"
)

// h2fault is a row of the matrix. do is told the stream that is being answered; it may also use its connection.
type h2fault struct {
	name   string
	hits   scope
	do     func(s *h2stream)
	before []end // how a request ends that has no headers yet, if not as the scope says
	within []end // how an answer ends that has begun, likewise
	sent   int   // how often a request without headers is sent in all, if not once
}

// after is how a request with a fault at a moment may end, and how an answer may that runs on the same connection.
func (f h2fault) after(m moment) (faulty, sibling []end) {
	hit := broken
	own := f.within
	if m == beforeHeaders {
		hit, own = failed, f.before
	}
	switch f.hits {
	case nobody:
		faulty, sibling = []end{answered}, []end{answered}
	case theStream:
		faulty, sibling = []end{hit}, []end{answered}
	case theConnection:
		faulty, sibling = []end{hit}, []end{broken}
	case atLeastStream:
		faulty, sibling = []end{hit}, []end{answered, broken}
	case anybody:
		faulty, sibling = []end{answered, hit}, []end{answered, broken}
	}
	if own != nil {
		faulty = own
	}
	return faulty, sibling
}

func code(c http2.ErrCode) func(*h2stream) { return func(s *h2stream) { s.abandon(c) } }

// never is a stream that the proxy has not opened.
const never = 0x7ffffff1

var h2faults = []h2fault{
	// Resets of the stream: final, unless the protocol proves the request unprocessed (contract row 2.6).
	{name: "RST_STREAM NO_ERROR", hits: theStream, do: code(http2.ErrCodeNo)},
	{name: "RST_STREAM INTERNAL_ERROR", hits: theStream, do: code(http2.ErrCodeInternal)},
	{name: "RST_STREAM CANCEL", hits: theStream, do: code(http2.ErrCodeCancel)},
	{name: "RST_STREAM PROTOCOL_ERROR", hits: theStream, do: code(http2.ErrCodeProtocol)},
	{name: "RST_STREAM ENHANCE_YOUR_CALM", hits: theStream, do: code(http2.ErrCodeEnhanceYourCalm)},
	{name: "RST_STREAM HTTP_1_1_REQUIRED", hits: theStream, do: code(http2.ErrCodeHTTP11Required)},
	{name: "RST_STREAM with an unknown code", hits: theStream, do: code(0xfeed)},
	{name: "RST_STREAM REFUSED_STREAM, always", hits: theStream, do: code(http2.ErrCodeRefusedStream), sent: 2},

	// The connection ends.
	{name: "FIN", hits: theConnection, do: func(s *h2stream) { s.fin() }},
	{name: "FIN without a word of TLS", hits: theConnection, do: func(s *h2stream) { s.cut() }},
	{name: "RST", hits: theConnection, do: func(s *h2stream) { s.reset() }},
	{name: "half a frame and FIN", hits: theConnection, do: func(s *h2stream) { s.bytes([]byte{0, 0, 99, 0, 0}); s.fin() }},
	{name: "GOAWAY that covers the stream, then FIN", hits: theConnection, do: func(s *h2stream) { s.goAway(s.id, http2.ErrCodeNo); s.fin() }},
	{name: "GOAWAY with an error that covers the stream, then FIN", hits: theConnection, do: func(s *h2stream) { s.goAway(s.id, http2.ErrCodeInternal); s.fin() }},
	{name: "GOAWAY with an error, then RST", hits: theConnection, do: func(s *h2stream) { s.goAway(never, http2.ErrCodeEnhanceYourCalm); s.reset() }},

	// What is no frame, or no frame at this place.
	{name: "HTTP/1.1 and FIN", hits: theConnection, do: func(s *h2stream) {
		s.bytes([]byte("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n"))
		s.fin()
	}},
	{name: "HTTP/1.1", hits: theConnection, do: func(s *h2stream) { s.bytes([]byte("HTTP/1.1 400 " + hush + "\r\nContent-Length: 0\r\n\r\n")) }},
	{name: "zeros", hits: anybody, do: func(s *h2stream) { s.bytes(make([]byte, 900)) }}, // a hundred empty DATA frames on stream 0
	{name: "frame larger than allowed", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameData, 0, s.id, make([]byte, s.maxFrame+1)...) }},
	{name: "unknown frame larger than allowed", hits: theConnection, do: func(s *h2stream) { s.raw(0xbe, 0, 0, make([]byte, s.maxFrame+1)...) }},
	{name: "DATA on stream 0", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameData, 0, 0, []byte(hush)...) }},
	{name: "DATA on a stream that was never opened", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameData, 0, never, []byte(hush)...) }},
	{name: "HEADERS on stream 0", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, 0x88) }},
	{name: "HEADERS on a stream that was never opened", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, never, 0x88) }},
	{name: "HEADERS on a stream of our own", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, 0x88) }},
	{name: "PUSH_PROMISE", hits: theConnection, do: func(s *h2stream) {
		s.raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, s.id, 0, 0, 0, 2, 0x82, 0x87, 0x84)
	}},
	{name: "CONTINUATION without HEADERS", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, s.id, 0x88) }},
	{name: "HEADERS interrupted by DATA", hits: theConnection, do: func(s *h2stream) {
		s.raw(http2.FrameHeaders, 0, s.id, 0x88)
		s.raw(http2.FrameData, 0, s.id, []byte(hush)...)
	}},
	{name: "HEADERS interrupted by PING", hits: theConnection, do: func(s *h2stream) {
		s.raw(http2.FrameHeaders, 0, s.id, 0x88)
		s.raw(http2.FramePing, 0, 0, make([]byte, 8)...)
	}},
	{name: "HEADERS continued on another stream", hits: theConnection, do: func(s *h2stream) {
		s.raw(http2.FrameHeaders, 0, s.id, 0x88)
		s.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, s.id+2, 0x88)
	}},
	{name: "RST_STREAM on stream 0", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameRSTStream, 0, 0, 0, 0, 0, 0) }},
	{name: "RST_STREAM on a stream that was never opened", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameRSTStream, 0, never, 0, 0, 0, 0) }},
	{name: "RST_STREAM of three bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameRSTStream, 0, s.id, 0, 0, 0) }},
	{name: "PING of seven bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FramePing, 0, 0, make([]byte, 7)...) }},
	{name: "PING on a stream", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FramePing, 0, s.id, make([]byte, 8)...) }},
	{name: "GOAWAY on a stream", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameGoAway, 0, s.id, make([]byte, 8)...) }},
	{name: "GOAWAY of seven bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameGoAway, 0, 0, make([]byte, 7)...) }},
	{name: "PRIORITY of four bytes", hits: anybody, do: func(s *h2stream) { s.raw(http2.FramePriority, 0, s.id, make([]byte, 4)...) }},
	{name: "padding longer than the DATA frame", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameData, http2.FlagDataPadded, s.id, 200, 'a') }},
	{name: "padded DATA frame without a byte", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameData, http2.FlagDataPadded, s.id) }},
	{name: "padding longer than the HEADERS frame", hits: atLeastStream, do: func(s *h2stream) {
		s.raw(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, s.id, 200, 0x88)
	}},

	// Settings.
	{name: "SETTINGS of five bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, 0, make([]byte, 5)...) }},
	{name: "SETTINGS on a stream", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, s.id) }},
	{name: "SETTINGS acknowledged with contents", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)...) }},
	{name: "SETTINGS acknowledged once too often", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameSettings, http2.FlagSettingsAck, 0) }},
	{name: "SETTINGS with a window of 2 GiB", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, 0, 0, 4, 0x80, 0, 0, 0) }},
	{name: "SETTINGS with frames of 16383 bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, 0, 0, 5, 0, 0, 0x3f, 0xff) }},
	{name: "SETTINGS with frames of 16 MiB", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, 0, 0, 5, 1, 0, 0, 0) }},
	{name: "SETTINGS with push", hits: anybody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) }},
	{name: "SETTINGS with push 2", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameSettings, 0, 0, 0, 2, 0, 0, 0, 2) }},

	// Windows.
	{name: "WINDOW_UPDATE of 0 on the connection", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0) }},
	{name: "WINDOW_UPDATE beyond 2 GiB on the connection", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff) }},
	{name: "WINDOW_UPDATE of three bytes", hits: theConnection, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 1) }},
	{name: "WINDOW_UPDATE of 0 on the stream", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, s.id, 0, 0, 0, 0) }},
	{name: "WINDOW_UPDATE beyond 2 GiB on the stream", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, s.id, 0x7f, 0xff, 0xff, 0xff) }},
	{name: "WINDOW_UPDATE on a stream that was never opened", hits: anybody, do: func(s *h2stream) { s.raw(http2.FrameWindowUpdate, 0, never, 0, 0, 0, 1) }},

	// Compressed headers that do not decompress: the two sides' tables are no longer the same, so nothing after it can be read. They
	// come as the answer's headers or, if those have been, as its trailers.
	{name: "HPACK index without an entry", hits: theConnection, do: hpackBlock(0x88, 0xfe)},
	{name: "HPACK index 0", hits: theConnection, do: hpackBlock(0x88, 0x80)},
	{name: "HPACK index beyond 64 bits", hits: theConnection, do: hpackBlock(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)},
	{name: "HPACK string longer than the block", hits: theConnection, do: hpackBlock(0x88, 0x00, 0x05, 'a')},
	{name: "HPACK Huffman code without a meaning", hits: theConnection, do: hpackBlock(0x88, 0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, 'a')},
	{name: "HPACK table larger than allowed", hits: theConnection, do: hpackBlock(0x3f, 0xff, 0xff, 0xff, 0x07, 0x88)},
	{name: "HPACK table resized behind a field", hits: theConnection, do: hpackBlock(0x88, 0x20)},

	// What is not forbidden, however strange.
	{name: "unknown frame", hits: nobody, do: func(s *h2stream) { s.raw(0xbe, 0xff, s.id, []byte(hush)...) }},
	{name: "unknown frame on stream 0", hits: nobody, do: func(s *h2stream) { s.raw(0xbe, 0xff, 0, []byte(hush)...) }},
	{name: "unknown frame on a stream that was never opened", hits: nobody, do: func(s *h2stream) { s.raw(0xbe, 0xff, never, []byte(hush)...) }},
	{name: "ALTSVC and ORIGIN", hits: nobody, do: func(s *h2stream) {
		s.raw(0xa, 0, 0, append([]byte{0, 0}, `h3=":443"`...)...)
		s.raw(0xc, 0, 0, append([]byte{0, 12}, "https://else"...)...)
	}},
	{name: "PING with unknown flags", hits: nobody, do: func(s *h2stream) { s.raw(http2.FramePing, 0xfe, 0, make([]byte, 8)...) }},
	{name: "PRIORITY", hits: nobody, do: func(s *h2stream) { s.raw(http2.FramePriority, 0, s.id, 0, 0, 0, 0, 15) }},
	{name: "PRIORITY on a stream that was never opened", hits: nobody, do: func(s *h2stream) { s.raw(http2.FramePriority, 0, never, 0, 0, 0, 0, 15) }},
	{name: "SETTINGS, unknown", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: 0xbeef, Val: 7}, http2.Setting{ID: 0x8, Val: 1}) }},
	{name: "SETTINGS, the same one twice", hits: anybody, do: func(s *h2stream) {
		s.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 70000})
	}},
	{name: "SETTINGS, header table 0", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}); s.sync() }},
	{name: "SETTINGS, header table 64 MiB", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 64 << 20}); s.sync() }},
	{name: "SETTINGS, frames of 1 MiB", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}) }},
	{name: "SETTINGS, header lists of 1 MiB", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1 << 20}) }},
	{name: "SETTINGS, a window of 2 GiB - 1", hits: nobody, do: func(s *h2stream) { s.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}) }},
	{name: "WINDOW_UPDATE up to 2 GiB - 1 on the connection", hits: nobody, do: func(s *h2stream) { s.grant(0, 1<<31-1-1<<20) }},
	{name: "acknowledgement of a PING that was never sent", hits: nobody, do: func(s *h2stream) { s.raw(http2.FramePing, http2.FlagPingAck, 0, make([]byte, 8)...) }},
}

func hpackBlock(block ...byte) func(*h2stream) {
	return func(s *h2stream) {
		s.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, s.id, block...)
	}
}

// TestH2 is the matrix: upstream × fault × moment. Beside the request that meets the fault runs a sibling on the same connection, and a
// stream on another.
func TestH2(t *testing.T) {
	t.Parallel()
	for _, f := range h2faults {
		for _, m := range []moment{beforeHeaders, afterHeaders, midEvent} {
			t.Run(f.name+"/"+string(m), func(t *testing.T) {
				t.Parallel()
				f.strike(t, m)
			})
		}
	}
}

// strike lets the fault happen.
func (f h2fault) strike(t *testing.T, m moment) {
	faulty, sibling := f.after(m)
	up := newH2Upstream(t)
	struck := make(chan struct{})
	up.on("/sibling", func(s *h2stream) {
		s.stream()
		s.send(event)
		s.pause(struck)
		s.finish(event)
	})
	w := newH2World(t, up)
	s := w.open("/sibling")
	seen := make(chan struct{})
	up.on("/faulty", func(s *h2stream) {
		text := event
		switch m {
		case beforeHeaders:
			s.whole()
		case afterHeaders:
			s.stream()
			s.pause(seen)
		case midEvent:
			s.stream()
			s.send(half)
			s.pause(seen)
			text = event[len(half):]
		}
		f.do(s)
		// If nobody minds, the answer goes on as if nothing had happened.
		if !s.ok(func() bool { return s.closed }) {
			if m == beforeHeaders {
				s.stream()
			}
			s.finish(text)
		}
	})
	c := w.post("/faulty", "{}")
	if m == afterHeaders {
		assert.NilError(t, c.head())
	} else if m == midEvent {
		c.expect(half)
	}
	close(seen)
	got, _ := w.ended(c, faulty...)
	if got == answered && f.hits == nobody {
		assert.Equal(t, c.body.String(), event)
	}
	close(struck)
	w.ended(s, sibling...)
	w.undisturbed()
	want := 1
	if f.sent > 0 && m == beforeHeaders {
		want = f.sent
	}
	assert.Equal(t, up.requests("/faulty"), want, "so often the request was sent")
}

// A fault on a connection that carries no request costs nobody anything: the next one is served, on another connection if need be.
func TestH2Idle(t *testing.T) {
	t.Parallel()
	for _, f := range h2faults {
		t.Run(f.name+"/"+string(idle), func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			w := newH2World(t, up)
			last := make(chan *h2stream, 1)
			up.on("/last", func(s *h2stream) {
				s.stream()
				s.finish(event)
				last <- s
			})
			w.ended(w.post("/last", "{}"), answered)
			s := wait(t, last, "the answer is sent")
			descriptors := w.scrape(t)["process_open_fds"]
			f.do(s)
			survives := s.sync()
			if f.hits == theConnection || f.hits == nobody {
				assert.Equal(t, survives, f.hits == nobody, "whether the connection goes on")
			}
			if !survives {
				w.reaches("process_open_fds", descriptors-1) // the proxy knows, too
			}
			w.undisturbed()
		})
	}
}
