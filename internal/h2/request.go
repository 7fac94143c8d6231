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
	if c.over != nil || c.doubtful || len(c.streams) >= int(min(maxStreams, c.peerStreams)) || c.out.Len() > headersAhead {
		return nil
	}
	length := req.ContentLength
	if req.Body == nil || req.Body == http.NoBody {
		length = 0
	} else if length == 0 {
		length = -1 // unknown, says http.Request
	}
	s := &stream{c: c, id: c.nextID, ctx: req.Context(), began: now, method: req.Method, uploaded: length == 0, body: upload{body: req.Body, rest: length},
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

// upload is a request body on its way. It belongs to one goroutine at a time.
type upload struct {
	body  io.ReadCloser
	rest  int64           // of the declared length, what is left to read; -1 if it is unknown
	piece *[16 << 10]byte // what the body is read into
	next  []byte          // of piece: read and not yet sent
	ended bool            // nothing follows next
}

var pieces = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// read reads the next piece.
func (u *upload) read() error {
	most := int64(len(u.piece))
	if u.rest >= 0 {
		most = min(most, u.rest)
	}
	n, err := io.ReadAtLeast(u.body, u.piece[:most], 1)
	u.next = u.piece[:n]
	if u.rest >= 0 {
		if u.rest -= int64(n); err == io.EOF {
			err = errShortBody
		}
		u.ended = u.rest == 0
	} else if err == io.EOF {
		u.ended, err = true, nil
	}
	return err
}

// upload sends the body as the peer's windows allow, and closes it. It returns false if it would have to wait but must not.
func (s *stream) upload(mayWait bool) bool {
	u := &s.body
	if u.piece == nil {
		u.piece = pieces.Get().(*[16 << 10]byte)
	}
	for over := false; !over; {
		if len(u.next) == 0 && !u.ended {
			if err := u.read(); err != nil {
				s.abandon(err)
				break
			}
		}
		var n int
		if n, over = s.sendData(u.next, u.ended, mayWait); n == 0 && !over {
			return false
		}
		u.next = u.next[n:]
	}
	pieces.Put(u.piece)
	u.piece, u.next = nil, nil
	u.body.Close()
	return true
}

// sendData sends of data what the peer's windows and frames allow. over means that nothing more is to be sent, because that
// was the last or because the stream is over; if it is not and n is 0, it would have had to wait but must not.
func (s *stream) sendData(data []byte, last, mayWait bool) (n int, over bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for !s.done {
		n := max(0, int(min(int64(len(data)), int64(c.peerFrame), c.window, s.peerWindow)))
		if (n > 0 || len(data) == 0) && c.out.Len() < bodyAhead {
			c.window -= int64(n)
			s.peerWindow -= int64(n)
			last = last && n == len(data)
			c.framer.WriteData(s.id, last, data[:n])
			c.flush()
			if last {
				s.uploaded = true
				if s.err != nil { // the whole response has come already
					c.forget(s, s.err)
				}
			}
			return n, last
		}
		if !mayWait {
			return 0, false
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
	return 0, true
}
