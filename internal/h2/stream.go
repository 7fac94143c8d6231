package h2

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"time"

	"golang.org/x/net/http2"
)

// stream is one exchange. Everything after the first lines is guarded by the connection's mu.
type stream struct {
	c        *conn
	id       uint32
	ctx      context.Context
	began    time.Time
	method   string
	body     upload        // the uploader's
	progress chan struct{} // has a token when the exchange's goroutine should look again
	over     chan struct{} // closed when done

	uploaded   bool      // the whole request has been sent
	done       bool      // the connection has forgotten it
	peerWindow int64     // what may be sent
	window     int64     // what the peer may send
	interim    []interim // not yet passed on
	waiting    uint32    // their size
	response   *http.Response
	buf        []byte // received, not yet read
	off        int    // of buf, what has been read
	read       int    // read, not yet given back to the peer's window
	rest       int64  // what the response's Content-Length has left; -1 if unknown
	trailer    http.Header
	err        error // why no more comes: io.EOF after a whole response
}

// interim is a 1xx response.
type interim struct {
	code   int
	header http.Header
}

// finish sends the body of a stream that has begun, and waits for the response.
func (c *conn) finish(req *http.Request, s *stream) (*http.Response, error) {
	switch {
	case s.body.rest == 0:
		closeBody(req)
	case s.body.rest < 0 || !s.upload(false):
		go s.upload(true)
	}
	c.flush()
	for {
		select {
		case <-s.progress:
		case <-s.ctx.Done():
			s.abandon(context.Cause(s.ctx))
			return nil, context.Cause(s.ctx)
		}
		c.mu.Lock()
		interim, response, err := s.interim, s.response, s.err
		s.interim, s.waiting = nil, 0
		c.mu.Unlock()
		for _, i := range interim {
			if trace := httptrace.ContextClientTrace(s.ctx); trace != nil && trace.Got1xxResponse != nil {
				if err := trace.Got1xxResponse(i.code, textproto.MIMEHeader(i.header)); err != nil {
					s.abandon(err)
					return nil, err
				}
			}
		}
		if response != nil {
			response.Request = req
			return response, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// respond takes in a header section: an interim response, the response or its trailers. It returns false if it is not
// allowed there.
func (c *conn) respond(s *stream, f *http2.MetaHeadersFrame) bool {
	header := c.names.header(f.RegularFields())
	if s.response != nil {
		if !f.StreamEnded() || len(f.PseudoFields()) > 0 {
			return false
		}
		s.trailer = header
		s.ended()
		return true
	}
	status := f.PseudoValue("status")
	code, err := strconv.Atoi(status)
	if err != nil || len(status) != 3 || code < 100 {
		return false
	}
	if code < 200 {
		for _, field := range f.Fields {
			s.waiting += field.Size()
		}
		if code == http.StatusSwitchingProtocols || f.StreamEnded() || s.waiting > maxHeaderBytes {
			return false
		}
		s.interim = append(s.interim, interim{code, header})
		s.wake()
		return true
	}
	length, ok := contentLength(header["Content-Length"])
	if !ok {
		return false
	}
	if length >= 0 {
		header["Content-Length"] = header["Content-Length"][:1] // a recipient may take more of them for an attack
	}
	s.response = &http.Response{Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: header, ContentLength: length, Body: (*body)(s)}
	if announced := header["Trailer"]; len(announced) > 0 {
		s.response.Trailer = announcedTrailers(announced)
	}
	if !hasBody(s.method, code) {
		s.rest = 0
	} else {
		s.rest = length
	}
	if f.StreamEnded() {
		if length < 0 {
			s.response.ContentLength = 0
		}
		s.ended()
	}
	s.wake()
	return true
}

func hasBody(method string, code int) bool {
	return method != http.MethodHead && code != http.StatusNoContent && code != http.StatusNotModified
}

// receive takes in a piece of the body; length counts its padding too.
func (s *stream) receive(data []byte, length int, last bool) {
	if s.rest >= 0 {
		if s.rest -= int64(len(data)); s.rest < 0 {
			s.c.reject(s.id, http2.ErrCodeProtocol, ErrMalformed)
			return
		}
	}
	if len(s.buf)+len(data) > cap(s.buf) { // what has been read makes room first, or a slow reader's buffer would grow for ever
		s.buf = s.buf[:copy(s.buf, s.buf[s.off:])]
		s.off = 0
	}
	s.buf = append(s.buf, data...)
	s.read += length - len(data)
	if last {
		s.ended()
	}
	s.wake()
}

// ended is called with the last frame of the response.
func (s *stream) ended() {
	end := error(io.EOF)
	if s.rest > 0 {
		end = io.ErrUnexpectedEOF // less than was declared
	}
	if s.uploaded {
		s.c.forget(s, end)
	} else {
		s.end(end) // the upload goes on until somebody has enough of it
	}
}

// end notes why nothing more comes, and tells the exchange's goroutine.
func (s *stream) end(err error) {
	if s.err == nil {
		s.err = err
	}
	s.wake()
}

func (s *stream) wake() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}

// forget frees a stream's place on the connection. The caller holds mu.
func (c *conn) forget(s *stream, err error) {
	s.end(err)
	if s.done {
		return
	}
	s.done = true
	close(s.over)
	delete(c.streams, s.id)
	if len(c.streams) > 0 || c.closed {
		return
	}
	c.idle = time.Now()
	if c.over != nil {
		c.leave(http2.ErrCodeNo)
	}
}

// abandon ends a stream of which nothing more is wanted.
func (s *stream) abandon(why error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.done {
		s.end(why)
		return
	}
	code := http2.ErrCodeCancel
	if s.err == io.EOF {
		code = http2.ErrCodeNo // the response is whole, only our upload is not
	}
	c.framer.WriteRSTStream(s.id, code)
	if c.read.Before(s.began) && time.Since(s.began) > doubtAfter && c.pinged.IsZero() {
		c.doubtful = true
		c.ping(time.Now())
	}
	c.flush()
	c.forget(s, why)
}

// doubtAfter is how long nothing may have come on a connection when a stream is given up, before it is asked for a sign of
// life and gets no further streams until then.
const doubtAfter = time.Second

// body is the response body of a stream.
type body stream

// Read returns what has come, or waits for it. With an empty p it only waits.
func (b *body) Read(p []byte) (int, error) {
	s := (*stream)(b)
	for {
		if n, err := s.take(p); n > 0 || err != nil || len(p) == 0 && b.Buffered() > 0 {
			return n, err
		}
		select {
		case <-s.progress:
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
	}
}

// take reads what is there.
func (s *stream) take(p []byte) (n int, err error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	n = copy(p, s.buf[s.off:])
	s.off += n
	if s.off == len(s.buf) {
		err = s.err
		s.off = 0
		if s.buf = s.buf[:0]; cap(s.buf) > keepBuffer {
			s.buf = nil
		}
		if err == io.EOF {
			s.deliverTrailer()
		}
	}
	if s.read += n; s.read >= streamWindow/2 && s.err == nil {
		c.framer.WriteWindowUpdate(s.id, uint32(s.read))
		s.window += int64(s.read)
		s.read = 0
		c.flush()
	}
	return n, err
}

// keepBuffer is how large a buffer a stream keeps that has nothing in it.
const keepBuffer = 1 << 10

func (s *stream) deliverTrailer() {
	if s.trailer == nil {
		return
	}
	if s.response.Trailer == nil {
		s.response.Trailer = http.Header{}
	}
	for name, values := range s.trailer {
		s.response.Trailer[name] = values
	}
	s.trailer = nil
}

// Buffered returns how many bytes have come and were not read.
func (b *body) Buffered() int {
	s := (*stream)(b)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return len(s.buf) - s.off
}

// Close gives up what has not come yet.
func (b *body) Close() error {
	s := (*stream)(b)
	s.abandon(errBodyClosed)
	s.c.mu.Lock()
	s.buf, s.off = nil, 0
	s.err = errBodyClosed // what ended the response is no longer of interest
	s.c.mu.Unlock()
	return nil
}
