package faults

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2conn is one of the proxy's connections, seen from the upstream.
type h2conn struct {
	up  *h2Upstream
	nth int // among the upstream's connections, from 1
	tcp *net.TCPConn
	tls *tls.Conn

	in      *http2.Framer // read by h2conn.read only
	decoder *hpack.Decoder
	control chan func(*http2.Framer) // acknowledgements and windows, which the reader must not wait for

	writing sync.Mutex
	out     *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer // what the encoder writes to

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change of what follows
	over     bool          // the proxy has closed the connection, or we have
	done     chan struct{} // closed then
	end      error         // how
	goneAway *http2.GoAwayFrame
	streams  map[uint32]*h2stream
	pongs    map[uint64]bool
	rules
	// What the proxy lets us send.
	window       int64 // of the connection
	granted      int64 // the largest that window has been
	streamWindow int64 // of a new stream
	maxFrame     int
	deaf         <-chan struct{} // not nil: the reader waits for it before the next frame
}

func newH2Conn(u *h2Upstream, tcp *net.TCPConn) *h2conn {
	c := &h2conn{
		up: u, tcp: tcp, tls: tls.Server(tcp, u.tls),
		control:      make(chan func(*http2.Framer), 1<<16),
		changed:      make(chan struct{}),
		done:         make(chan struct{}),
		streams:      map[uint32]*h2stream{},
		pongs:        map[uint64]bool{},
		rules:        newRules(),
		window:       65535,
		granted:      65535,
		streamWindow: 65535,
		maxFrame:     16384,
	}
	c.in = http2.NewFramer(nil, c.tls)
	c.decoder = hpack.NewDecoder(4096, nil)
	c.in.ReadMetaHeaders = c.decoder
	c.out = http2.NewFramer(c.tls, nil)
	c.out.AllowIllegalWrites = true
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

// change changes the connection's state and wakes who waits for it.
func (c *h2conn) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// until waits for a state of the connection. It returns false if the connection is over instead; a script may go on regardless, since
// what it writes then goes nowhere.
func (c *h2conn) until(what string, reached func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		ok, over, changed := reached(), c.over, c.changed
		c.mu.Unlock()
		if ok || over {
			return ok
		}
		select {
		case <-changed:
		case <-deadline.C:
			c.up.t.Errorf("connection %d of the proxy: waited in vain until %s", c.nth, what)
			return false
		}
	}
}

// write writes frames. A connection that is gone is no error of the upstream's.
func (c *h2conn) write(frames func(*http2.Framer)) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.tls.SetWriteDeadline(time.Now().Add(patience))
	frames(c.out)
}

// bytes writes what need not be frames.
func (c *h2conn) bytes(p []byte) {
	c.write(func(*http2.Framer) { c.tls.Write(p) })
}

// many writes a frame n times, without a system call for each. It ends early if the connection does.
func (c *h2conn) many(n int, frame func(*http2.Framer)) {
	var once bytes.Buffer
	fr := http2.NewFramer(&once, nil)
	fr.AllowIllegalWrites = true
	frame(fr)
	perWrite := max(1, (64<<10)/once.Len())
	block := bytes.Repeat(once.Bytes(), perWrite)
	for ; n > 0 && !c.isOver(); n -= perWrite {
		c.bytes(block[:min(n, perWrite)*once.Len()])
	}
}

func (c *h2conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// writeControl writes what the reader has to say.
func (c *h2conn) writeControl() {
	for {
		select {
		case frame := <-c.control:
			c.write(frame)
		case <-c.done:
			return
		}
	}
}

// raw writes a frame of any kind.
func (c *h2conn) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) {
	c.write(func(fr *http2.Framer) { fr.WriteRawFrame(kind, flags, stream, payload) })
}

// set sends SETTINGS, and holds the proxy to them.
func (c *h2conn) set(settings ...http2.Setting) {
	c.change(func() { c.announce(settings) })
	c.write(func(fr *http2.Framer) { fr.WriteSettings(settings...) })
}

// goAway sends GOAWAY and waits until the proxy has read it.
func (c *h2conn) goAway(last uint32, code http2.ErrCode) {
	c.write(func(fr *http2.Framer) { fr.WriteGoAway(last, code, []byte(hush)) })
	if c.sync() {
		c.change(func() { c.final = true })
	}
}

// sync waits until the proxy has read everything up to here. It returns false if the connection is over instead.
func (c *h2conn) sync() bool {
	var id [8]byte
	c.mu.Lock()
	number := uint64(len(c.pongs) + 1)
	c.pongs[number] = false
	c.mu.Unlock()
	binary.BigEndian.PutUint64(id[:], number)
	c.write(func(fr *http2.Framer) { fr.WritePing(false, id) })
	return c.until("a PING is acknowledged", func() bool { return c.pongs[number] })
}

// grant lets the proxy send n more bytes on a stream, or on the connection (0).
func (c *h2conn) grant(stream uint32, n int) {
	c.change(func() { c.allow(stream, n) })
	c.write(func(fr *http2.Framer) { fr.WriteWindowUpdate(stream, uint32(n)) })
}

// fin closes the connection as TLS wants it closed.
func (c *h2conn) fin() { c.tls.Close() }

// cut closes our side of the connection without a word of TLS.
func (c *h2conn) cut() { c.tcp.CloseWrite() }

// reset closes the connection by RST.
func (c *h2conn) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// drain reads what the proxy sends until it closes the connection.
func (c *h2conn) drain() { io.Copy(io.Discard, c.tls) }

// encode compresses a header block: name, value, name, value.
func (c *h2conn) encode(fields ...string) []byte {
	c.block.Reset()
	for pair := range slices.Chunk(fields, 2) {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}); err != nil {
			panic(fmt.Sprint("into memory: ", err))
		}
	}
	return slices.Clone(c.block.Bytes())
}

// h2stream is one request.
type h2stream struct {
	*h2conn
	id     uint32
	fields []hpack.HeaderField
	path   string

	// Guarded by the connection's mu.
	body       bytes.Buffer
	complete   bool           // END_STREAM has come
	cancelled  *http2.ErrCode // RST_STREAM has come
	closed     bool           // we have sent END_STREAM or RST_STREAM
	abandoned  bool           // we have sent RST_STREAM
	mayReceive int64          // what we let the proxy send
	maySend    int64          // what the proxy lets us send
	stuck      bool           // we have more to send than that
}

// whole waits for the end of the request. It returns false if there is none.
func (s *h2stream) whole() bool {
	return s.until("a request is complete", func() bool { return s.complete || s.cancelled != nil }) && s.ok(func() bool { return s.complete })
}

// gone waits until the proxy resets the stream, and returns with which code.
func (s *h2stream) gone() (code http2.ErrCode, ok bool) {
	ok = s.until("the proxy resets a stream", func() bool { return s.cancelled != nil })
	if ok {
		code = *s.cancelled
	}
	return code, ok
}

// ok looks at the state as it is.
func (s *h2stream) ok(state func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return state()
}

// pause waits for a word of the test.
func (s *h2stream) pause(word <-chan struct{}) {
	select {
	case <-word:
	case <-s.up.closing:
	}
}

// field returns a header of the request.
func (s *h2stream) field(name string) string {
	for _, f := range s.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// head sends HEADERS: name, value, name, value.
func (s *h2stream) head(fields ...string) { s.headers(false, fields...) }

// last sends HEADERS that end the stream: trailers, or an answer without a body.
func (s *h2stream) last(fields ...string) { s.headers(true, fields...) }

func (s *h2stream) headers(end bool, fields ...string) {
	s.write(func(fr *http2.Framer) {
		block := s.encode(fields...)
		first := block[:min(len(block), 16384)]
		block = block[len(first):]
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
		for len(block) > 0 {
			piece := block[:min(len(block), 16384)]
			block = block[len(piece):]
			fr.WriteContinuation(s.id, len(block) == 0, piece)
		}
	})
	if end {
		s.change(func() { s.closed = true })
	}
}

// stream begins an answer that is a stream of events.
func (s *h2stream) stream() {
	s.head(":status", "200", "content-type", "text/event-stream", "request-id", "upstream-"+s.path)
}

// send sends DATA as the proxy's windows allow. It returns false if the stream ends before everything is sent.
func (s *h2stream) send(text string) bool { return s.data([]byte(text), false) }

// finish sends DATA and the end of the stream.
func (s *h2stream) finish(text string) { s.data([]byte(text), true) }

func (s *h2stream) data(p []byte, end bool) bool {
	for {
		n := 0
		if len(p) > 0 {
			ready := s.until("the proxy opens a window", func() bool {
				n = max(0, int(min(int64(len(p)), int64(s.maxFrame), s.window, s.maySend)))
				s.window -= int64(n) // at once, before another stream takes it
				s.maySend -= int64(n)
				s.stuck = n == 0
				return n > 0 || s.cancelled != nil
			})
			if !ready || n == 0 {
				return false
			}
		}
		final := end && n == len(p)
		s.write(func(fr *http2.Framer) { fr.WriteData(s.id, final, p[:n]) })
		if p = p[n:]; len(p) == 0 {
			if end {
				s.change(func() { s.closed = true })
			}
			return true
		}
	}
}

// abandon sends RST_STREAM.
func (s *h2stream) abandon(code http2.ErrCode) {
	s.change(func() { s.closed, s.abandoned = true, true })
	s.write(func(fr *http2.Framer) { fr.WriteRSTStream(s.id, code) })
}
