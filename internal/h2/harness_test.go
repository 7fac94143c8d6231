package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"gotest.tools/v3/assert"
)

var options = Options{SettingsTimeout: 10 * time.Second, PingAfter: 30 * time.Second, PingTimeout: 15 * time.Second, IdleTimeout: 90 * time.Second}

// scripted runs a test between a Transport and a peer that it scripts, with a connection between them. The test is a bubble
// (testing/synctest): time stands still while anything happens, and a goroutine that does not end fails it.
func scripted(t *testing.T, test func(t *testing.T, tr *Transport, p *peer), settings ...http2.Setting) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := New(&http.Transport{}, options)
		p := join(t, tr, settings...)
		test(t, tr, p)
		synctest.Wait()
		for _, c := range tr.conns {
			c.net.Close()
		}
		synctest.Wait()
		assert.Equal(t, len(tr.conns), 0)
	})
}

// join gives the Transport a connection to a new peer.
func join(t *testing.T, tr *Transport, settings ...http2.Setting) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	p := newPeer(theirs)
	t.Cleanup(func() { theirs.Close() })
	go p.out.WriteSettings(settings...)
	rt, ok := tr.adopt(newPipeEnd(ours)).(adopted)
	assert.Assert(t, ok, "%v", rt)
	assert.DeepEqual(t, p.take()[:3], []string{"SETTINGS", "WINDOW_UPDATE 0 1073676289", "SETTINGS ack"})
	return p
}

// peer is the server's end of a connection. It says what the test has it say, and notes what it hears.
type peer struct {
	net   net.Conn
	out   *http2.Framer
	block bytes.Buffer
	hpack *hpack.Encoder

	mu      sync.Mutex
	heard   []string      // the frames that came, not yet taken
	deaf    chan struct{} // if not nil, the peer does not read on until it is closed
	decoder *hpack.Decoder
	section []byte                         // the header section that comes
	sizes   int                            // of all header sections
	header  map[uint32][]hpack.HeaderField // of the streams
	body    map[uint32][]byte              // of the streams
}

// newPeer begins to read from a connection whose preface has not been read.
func newPeer(nc net.Conn) *peer {
	p := &peer{net: nc, out: http2.NewFramer(nc, nil), decoder: hpack.NewDecoder(4<<10, nil), header: map[uint32][]hpack.HeaderField{}, body: map[uint32][]byte{}}
	p.out.AllowIllegalWrites = true
	p.hpack = hpack.NewEncoder(&p.block)
	go p.listen()
	return p
}

func (p *peer) listen() {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.net, preface); err != nil {
		p.hear("EOF")
		return
	}
	if string(preface) != http2.ClientPreface {
		p.hear(fmt.Sprintf("preface %q", preface))
	}
	in := http2.NewFramer(nil, p.net)
	in.SetMaxReadFrameSize(32 << 10)
	for {
		f, err := in.ReadFrame()
		if err == io.EOF || errors.Is(err, io.ErrClosedPipe) {
			p.hear("EOF")
			return
		}
		if err != nil {
			p.hear(err.Error())
			return
		}
		if deaf := p.hear(p.describe(f)); deaf != nil {
			<-deaf
		}
	}
}

func (p *peer) hear(text string) (deaf chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, text)
	return p.deaf
}

// describe returns the frame as text, and notes what it carries.
func (p *peer) describe(f http2.Frame) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := f.Header()
	words := []any{h.Type}
	if h.StreamID != 0 || h.Type == http2.FrameWindowUpdate {
		words = append(words, h.StreamID)
	}
	add := func(is bool, word any) {
		if is {
			words = append(words, word)
		}
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		p.section = bytes.Clone(f.HeaderBlockFragment())
		add(f.StreamEnded(), "end")
		add(!f.HeadersEnded(), "more")
	case *http2.ContinuationFrame:
		p.section = append(p.section, f.HeaderBlockFragment()...)
		add(!f.HeadersEnded(), "more")
	case *http2.DataFrame:
		p.body[h.StreamID] = append(p.body[h.StreamID], f.Data()...)
		add(true, h.Length)
		add(f.StreamEnded(), "end")
	case *http2.RSTStreamFrame:
		add(true, f.ErrCode)
	case *http2.GoAwayFrame:
		add(true, f.ErrCode)
	case *http2.WindowUpdateFrame:
		add(true, f.Increment)
	case *http2.SettingsFrame:
		add(f.IsAck(), "ack")
	case *http2.PingFrame:
		add(f.IsAck(), "ack")
	}
	if f, ok := f.(interface{ HeadersEnded() bool }); ok && f.HeadersEnded() {
		p.sizes += len(p.section)
		fields, err := p.decoder.DecodeFull(p.section)
		add(err != nil, err)
		p.header[h.StreamID] = fields
	}
	return strings.TrimSuffix(fmt.Sprintln(words...), "\n")
}

// deafen keeps the peer from reading more than one further frame, until listenAgain.
func (p *peer) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = make(chan struct{})
}

func (p *peer) listenAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.deaf)
	p.deaf = nil
}

// jam deafens the peer, and has a write to it be stuck and another one wait, until listenAgain.
func (p *peer) jam() {
	p.deafen()
	for range 3 {
		p.out.WritePing(false, [8]byte{})
		synctest.Wait()
	}
}

// take returns what has come since the last time, as text, when everything has come to rest.
func (p *peer) take() []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := p.heard
	p.heard = nil
	return heard
}

// field returns the values of one field of a request's header section.
func (p *peer) field(stream uint32, name string) (values []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.header[stream] {
		if f.Name == name {
			values = append(values, f.Value)
		}
	}
	return values
}

// encode returns a header section of "name: value" lines.
func (p *peer) encode(lines ...string) []byte {
	p.block.Reset()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		p.hpack.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return bytes.Clone(p.block.Bytes())
}

// headers writes a header section, and headersEnd one that ends the stream.
func (p *peer) headers(stream uint32, lines ...string) {
	p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: p.encode(lines...)})
}

func (p *peer) headersEnd(stream uint32, lines ...string) {
	p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: true, BlockFragment: p.encode(lines...)})
}

func (p *peer) data(stream uint32, text string)    { p.out.WriteData(stream, false, []byte(text)) }
func (p *peer) dataEnd(stream uint32, text string) { p.out.WriteData(stream, true, []byte(text)) }

// exchange is a request under way.
type exchange struct {
	cancel context.CancelCauseFunc
	done   bool // RoundTrip has returned
	resp   *http.Response
	err    error
	got    []byte // of the response's body, by read
	ended  error  // what ended read
	sent   *reqBody
}

// send begins a request.
func send(tr http.RoundTripper, method, body string, header ...string) *exchange {
	req, _ := http.NewRequest(method, "https://upstream.example/path?query", nil)
	x := &exchange{}
	if body != "" {
		x.sent = &reqBody{Reader: strings.NewReader(body)}
		req.Body, req.ContentLength = x.sent, int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) {
			x.sent = &reqBody{Reader: strings.NewReader(body)}
			return x.sent, nil
		}
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return x.send(tr, req)
}

func (x *exchange) send(tr http.RoundTripper, req *http.Request) *exchange {
	ctx, cancel := context.WithCancelCause(req.Context())
	x.cancel = cancel
	go func() {
		x.resp, x.err = tr.RoundTrip(req.WithContext(ctx))
		x.done = true
	}()
	return x
}

func get(tr http.RoundTripper) *exchange { return send(tr, "GET", "") }

// read waits until everything has come to rest, and then reads what there is of the body.
func (x *exchange) read(t *testing.T) {
	t.Helper()
	synctest.Wait()
	assert.Assert(t, x.done)
	assert.NilError(t, x.err)
	go func() {
		buf := make([]byte, 512)
		for x.ended == nil {
			var n int
			n, x.ended = x.resp.Body.Read(buf)
			x.got = append(x.got, buf[:n]...)
		}
		x.resp.Body.Close()
	}()
	synctest.Wait()
}

// reqBody is a request body that knows whether it was closed.
type reqBody struct {
	io.Reader
	mu     sync.Mutex
	closed int
}

func (b *reqBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

func (b *reqBody) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed > 0
}

// interimTo begins a request whose interim responses go to pass.
func interimTo(tr http.RoundTripper, pass func(code int, header http.Header) error) *exchange {
	req, _ := http.NewRequest("GET", "https://upstream.example/", nil)
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error { return pass(code, http.Header(header)) },
	})
	return (&exchange{}).send(tr, req.WithContext(ctx))
}

// pipeEnd is our end of a connection. Its writes fail with err if that is set.
type pipeEnd struct {
	net.Conn
	writing chan struct{} // net.Pipe's own mutex would keep synctest.Wait from returning
	err     atomic.Value
}

func newPipeEnd(nc net.Conn) *pipeEnd { return &pipeEnd{Conn: nc, writing: make(chan struct{}, 1)} }

func (c *pipeEnd) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	if err, ok := c.err.Load().(error); ok {
		return 0, err
	}
	return c.Conn.Write(p)
}

// countGoroutines counts those of this package.
func countGoroutines() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "created by github.com/basher83/anthropic-oauth-proxy/internal/h2.")
}
