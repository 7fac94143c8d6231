package h2

import (
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// start begins the request's stream, or returns nil if the connection does not take it.
func (c *conn) start(req *http.Request) *stream {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != nil || c.doubtful || len(c.streams) >= int(min(maxStreams, c.peerStreams)) {
		return nil
	}
	length := req.ContentLength
	if req.Body == nil || req.Body == http.NoBody {
		length = 0
	} else if length == 0 {
		length = -1 // unknown, says http.Request
	}
	s := &stream{c: c, id: c.nextID, ctx: req.Context(), began: now, method: req.Method, length: length, uploaded: length == 0,
		window: streamWindow, peerWindow: c.peerWindow, progress: make(chan struct{}, 1), over: make(chan struct{}), rest: -1}
	c.nextID += 2
	if c.nextID >= 1<<31 {
		c.end(ErrClosed) // the ids are used up
	}
	c.streams[s.id] = s
	c.encode(req, length)
	c.writeHeaders(s.id, s.uploaded)
	return s
}

// encode puts the request's header section into block.
func (c *conn) encode(req *http.Request, length int64) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	path := req.URL.RequestURI()
	if req.URL.Opaque != "" { // of the form //host/path, which RequestURI makes absolute
		path = strings.TrimPrefix(path, req.URL.Scheme+"://"+req.URL.Host)
	}
	c.block.Reset()
	c.field(":authority", host, false)
	c.field(":method", req.Method, false)
	c.field(":path", path, false)
	c.field(":scheme", req.URL.Scheme, false)
	for name, values := range req.Header {
		secret := false
		switch name {
		case "Host", "Content-Length", "Connection", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Te":
			continue // said otherwise, or not at all, in HTTP/2 (RFC 9113 section 8.2.2)
		case "User-Agent":
			if len(values) == 1 && values[0] == "" { // how net/http says that there is none
				continue
			}
		case "Authorization", "X-Api-Key", "Cookie":
			secret = true // no index of it, from whose use others' requests could guess at it (RFC 7541 section 7.1.3)
		}
		name = c.lower.get(name, strings.ToLower)
		for _, value := range values {
			c.field(name, textproto.TrimString(value), secret) // RFC 9113 section 8.2.1
		}
	}
	if length > 0 || length == 0 && (req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch) {
		c.field("content-length", strconv.FormatInt(length, 10), false)
	}
}

func (c *conn) field(name, value string, secret bool) {
	c.hpack.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: secret})
}

// writeHeaders puts block into frames.
func (c *conn) writeHeaders(id uint32, last bool) {
	block := c.block.Bytes()
	for first := true; first || len(block) > 0; first = false {
		piece := block[:min(len(block), c.peerFrame)]
		block = block[len(piece):]
		if first {
			c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: piece, EndStream: last, EndHeaders: len(block) == 0})
		} else {
			c.framer.WriteContinuation(id, len(block) == 0, piece)
		}
	}
}

// upload sends the body as the peer's windows allow. It returns false if it would have to wait but must not.
func (s *stream) upload(body io.Reader, mayWait bool) bool {
	piece := pieces.Get().(*[16 << 10]byte)
	defer pieces.Put(piece)
	for {
		n := s.allowance(len(piece), mayWait)
		if n == 0 {
			return false
		}
		if n < 0 {
			return true // the stream is over
		}
		got, err := io.ReadFull(body, piece[:n])
		ended := err == io.EOF || err == io.ErrUnexpectedEOF
		if s.length > 0 {
			s.length -= int64(got)
			if s.length > 0 && ended {
				s.abandon(errShortBody)
				return true
			}
			ended = s.length == 0
		}
		if err != nil && !ended {
			s.abandon(err)
			return true
		}
		if s.sendData(piece[:got], n-got, ended) {
			return true
		}
	}
}

var pieces = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// allowance takes up to most bytes from the peer's windows. It returns 0 if there is nothing to take and it must not wait
// for it, and -1 if the stream is over.
func (s *stream) allowance(most int, mayWait bool) int {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.length > 0 {
		most = int(min(int64(most), s.length))
	}
	for {
		if s.done {
			return -1
		}
		n := int(min(int64(most), int64(c.peerFrame), c.window, s.peerWindow))
		if n > 0 && c.out.Len() < bodyAhead {
			c.window -= int64(n)
			s.peerWindow -= int64(n)
			return n
		}
		if !mayWait {
			return 0
		}
		changed := c.changed
		c.waiting++
		c.mu.Unlock()
		select {
		case <-changed:
		case <-s.over:
		}
		c.mu.Lock()
		c.waiting--
	}
}

// sendData reports whether there is nothing more to send. unused is what of the allowance was not needed.
func (s *stream) sendData(data []byte, unused int, last bool) bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.window += int64(unused)
	s.peerWindow += int64(unused)
	if s.done {
		c.window += int64(len(data))
		return true
	}
	c.framer.WriteData(s.id, last, data)
	c.flush()
	if last {
		s.uploaded = true
		if s.err != nil { // the whole response has come already
			c.forget(s, s.err)
		}
	}
	return last
}
