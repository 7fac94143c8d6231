package faults

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"gotest.tools/v3/assert"
)

// h2Upstream is an HTTP/2 upstream that sends exactly the frames that a test's script says. Set its fields before the first connection.
type h2Upstream struct {
	*stage[*h2stream]
	tls   *tls.Config
	hello func(c *h2conn) bool // instead of settle; if it returns false, all input is dropped until the proxy closes the connection
}

// plenty is a window size that no test uses up.
const plenty = 1 << 30

func newH2Upstream(t *testing.T) *h2Upstream {
	t.Helper()
	u := &h2Upstream{newStage[*h2stream](t, listen(t), "https"), &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"h2"}}, nil}
	u.start(u.serve)
	return u
}

// certificate returns a certificate that the process accepts.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	ca, err := trusted()
	assert.NilError(t, err)
	cert, err := ca.Issue(nil)
	assert.NilError(t, err)
	return cert
}

func (u *h2Upstream) follow(path string, s script) { u.on(path, func(r *h2stream) { s.play(r) }) }

func (u *h2Upstream) serve(conn net.Conn) {
	tcp := conn.(*net.TCPConn)
	c := &h2conn{h2Upstream: u, tcp: tcp, tls: tls.Server(tcp, u.tls), streams: map[uint32]*h2stream{}, window: 65535}
	defer u.change(func() { c.over = true })
	u.mu.Lock()
	c.nth = u.opened
	u.mu.Unlock()
	tcp.SetDeadline(time.Now().Add(patience))
	if c.tls.Handshake() != nil {
		return
	}
	tcp.SetDeadline(time.Time{})
	c.in, c.out = http2.NewFramer(nil, c.tls), http2.NewFramer(c.tls, nil)
	c.in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.out.AllowIllegalWrites = true
	c.encoder = hpack.NewEncoder(&c.block)
	if u.hello == nil {
		c.settle()
	} else if !u.hello(c) {
		io.Copy(io.Discard, c.tls)
		return
	}
	if _, err := io.CopyN(io.Discard, c.tls, int64(len(http2.ClientPreface))); err == nil {
		c.read()
	}
}

// h2conn is one of the proxy's connections. What can change is guarded by the stage's mu.
type h2conn struct {
	*h2Upstream
	nth int // among the upstream's connections, from 1
	tcp *net.TCPConn
	tls *tls.Conn
	in  *http2.Framer // read by read only

	writing sync.Mutex
	out     *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer // what the encoder writes to

	over    bool // the proxy has closed the connection, or we have
	deaf    bool // we read no more
	streams map[uint32]*h2stream
	window  int64 // of a new stream, from the proxy's SETTINGS; the connection's window is larger than any test needs
}

func (c *h2conn) write(frames func(*http2.Framer)) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.tls.SetWriteDeadline(time.Now().Add(patience))
	frames(c.out)
}

// settle sends the first SETTINGS. A stream's window is 64 KiB, and read enlarges it as bytes arrive.
func (c *h2conn) settle(settings ...http2.Setting) {
	c.write(func(fr *http2.Framer) { fr.WriteSettings(settings...); fr.WriteWindowUpdate(0, plenty) })
}

// read reads what the proxy sends until the connection ends. It never waits for a write, because the proxy may be waiting for us to read.
func (c *h2conn) read() {
	for {
		frame, err := c.in.ReadFrame()
		if err != nil {
			return
		}
		c.mu.Lock()
		deaf := c.deaf
		c.mu.Unlock()
		if deaf {
			<-c.closing
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			if window, ok := f.Value(http2.SettingInitialWindowSize); ok {
				c.change(func() { c.window = int64(window) })
			}
			c.serving.Go(func() { c.write(func(fr *http2.Framer) { fr.WriteSettingsAck() }) })
		case *http2.PingFrame:
			data := f.Data
			c.serving.Go(func() { c.write(func(fr *http2.Framer) { fr.WritePing(true, data) }) })
		case *http2.MetaHeadersFrame:
			s := &h2stream{h2conn: c, id: f.StreamID, method: f.PseudoValue("method"), path: f.PseudoValue("path")}
			c.change(func() {
				s.maySend, s.complete = c.window, f.StreamEnded()
				c.streams[s.id] = s
			})
			script := c.accept(s)
			if script == nil {
				script = func(s *h2stream) {
					if s.whole() {
						s.head(":status", "200")
						s.finish("ok")
					}
				}
			}
			c.serving.Go(func() { script(s) })
		case *http2.DataFrame:
			s, n := c.streams[f.StreamID], uint32(len(f.Data()))
			shut := false
			c.change(func() {
				s.body.Write(f.Data())
				s.complete = s.complete || f.StreamEnded()
				shut = s.shut
			})
			if n > 0 && !shut {
				c.serving.Go(func() { s.grant(n) })
			}
		case *http2.RSTStreamFrame:
			if s := c.streams[f.StreamID]; s != nil {
				c.change(func() { s.cancelled = true })
			}
		case *http2.WindowUpdateFrame:
			if s := c.streams[f.StreamID]; s != nil {
				c.change(func() { s.maySend += int64(f.Increment) })
			}
		}
	}
}

// goAway sends GOAWAY.
func (c *h2conn) goAway(last uint32, code http2.ErrCode) {
	c.write(func(fr *http2.Framer) { fr.WriteGoAway(last, code, []byte(hush)) })
}

// look evaluates a condition under the lock.
func (c *h2conn) look(state func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return state()
}

// bytes writes bytes that need not be frames.
func (c *h2conn) bytes(text string) { c.write(func(*http2.Framer) { io.WriteString(c.tls, text) }) }

// fin closes our side of the connection with TLS's close_notify. Closing both sides with unread input would send a reset.
func (c *h2conn) fin() { c.tls.CloseWrite(); c.cut() }

// cut closes our side of the connection without close_notify.
func (c *h2conn) cut() { c.tcp.CloseWrite() }

// reset closes the connection by RST.
func (c *h2conn) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// h2stream is one request.
type h2stream struct {
	*h2conn
	id           uint32
	method, path string

	// Guarded by the stage's mu.
	body      bytes.Buffer
	complete  bool  // END_STREAM has arrived
	cancelled bool  // RST_STREAM has arrived
	closed    bool  // we have sent END_STREAM or RST_STREAM
	shut      bool  // only grant enlarges its window
	maySend   int64 // what the proxy's window allows us to send
}

func (s *h2stream) target() string { return s.path }

func (s *h2stream) whole() bool {
	return s.reaches("a request is complete", func() bool { return s.complete || s.cancelled || s.over }) && s.look(func() bool { return s.complete })
}

// gone waits until the proxy resets the stream.
func (s *h2stream) gone() bool {
	return s.reaches("the proxy resets a stream", func() bool { return s.cancelled || s.over })
}

// unread stops enlarging the window and waits until the proxy has used it up.
func (s *h2stream) unread() {
	s.change(func() { s.shut = true })
	s.reaches("the window is used", func() bool { return s.body.Len() >= 65535 || s.complete || s.cancelled || s.over })
}

// aside sends GOAWAY, so that this is the connection's last request.
func (s *h2stream) aside() { s.goAway(s.id, http2.ErrCodeNo) }

// grant lets the proxy send n more bytes.
func (s *h2stream) grant(n uint32) { s.write(func(fr *http2.Framer) { fr.WriteWindowUpdate(s.id, n) }) }

// head sends HEADERS: name, value, name, value.
func (s *h2stream) head(fields ...string) { s.headers(false, fields) }

// last sends HEADERS that end the stream: trailers, or an answer without a body.
func (s *h2stream) last(fields ...string) { s.headers(true, fields) }

func (s *h2stream) headers(end bool, fields []string) {
	s.write(func(fr *http2.Framer) {
		s.block.Reset()
		for pair := range slices.Chunk(fields, 2) {
			s.encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}) // into memory
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.block.Bytes(), EndStream: end, EndHeaders: true})
	})
	s.change(func() { s.closed = s.closed || end })
}

func (s *h2stream) stream() { s.head(":status", "200", "content-type", "text/event-stream") }

func (s *h2stream) send(text string) bool { return s.data(text, false) }

func (s *h2stream) finish(text string) { s.data(text, true) }

// data sends DATA as far as the proxy's windows allow. It returns false if the stream ends before everything is sent.
func (s *h2stream) data(text string, end bool) bool {
	for {
		piece := ""
		ready := s.reaches("the proxy opens a window", func() bool {
			piece = text[:min(len(text), 16384, int(max(s.maySend, 0)))]
			s.maySend -= int64(len(piece))
			return piece != "" || text == "" || s.cancelled || s.over
		})
		if !ready || s.look(func() bool { return s.cancelled || s.over }) {
			return false
		}
		text = text[len(piece):]
		s.write(func(fr *http2.Framer) { fr.WriteData(s.id, end && text == "", []byte(piece)) })
		if text == "" {
			s.change(func() { s.closed = s.closed || end })
			return true
		}
	}
}

// abandon sends RST_STREAM.
func (s *h2stream) abandon(code http2.ErrCode) {
	s.change(func() { s.closed = true })
	s.write(func(fr *http2.Framer) { fr.WriteRSTStream(s.id, code) })
}
