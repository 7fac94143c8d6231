package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// conn is a TCP connection that can tell what net/http does not: whether anything was written on it, and whether an HTTP/2
// peer has spoken.
type conn struct {
	net.Conn
	in      io.Reader // Conn, read ahead or line by line
	written atomic.Int64

	// greeted is closed when HTTP/2's first SETTINGS have come, or cannot come any more; nil but for HTTP/2 that was dialed
	// directly.
	greeted chan struct{}
	frames  atomic.Int32 // writes since the TLS handshake
	once    sync.Once
}

// readAheadSize is how much is read from the network at once, where crypto/tls alone would read one or two of its records.
const readAheadSize = 16 << 10

func newConn(c net.Conn, plain bool) *conn {
	if plain {
		return &conn{Conn: c, in: &lineReader{from: c}}
	}
	return &conn{Conn: c, in: bufio.NewReaderSize(c, readAheadSize)}
}

func (c *conn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	// net/http writes its own SETTINGS first. While requests wait in awaitGreeting, what it writes next can only acknowledge
	// the peer's.
	if c.greeted != nil && c.frames.Add(1) == 2 {
		c.greet()
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	if c.greeted != nil {
		c.greet()
	}
	return c.Conn.Close()
}

func (c *conn) greet() { c.once.Do(func() { close(c.greeted) }) }

// awaitGreeting waits until an HTTP/2 peer has sent its first SETTINGS. A peer that accepts connections and then says nothing
// has read nothing of the request, which has not been sent (contract row 2.1); it is given up when the time is over.
func (c *conn) awaitGreeting(ctx context.Context) {
	if c.greeted == nil {
		return
	}
	select {
	case <-c.greeted:
	case <-ctx.Done():
		if cause := context.Cause(ctx); cause == errConnectTimeout || cause == ErrHeaderTimeout {
			c.Close() // or the next request would wait for it, too
		}
	}
}

// connOf returns the conn below TLS; nil if there is none.
func connOf(nc net.Conn) *conn {
	for {
		switch c := nc.(type) {
		case *conn:
			return c
		case *tls.Conn:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}

// lineReader hands out at most one line at a time, to make net/http deliver a chunk as soon as it is complete. Its reader of
// chunked encoding goes on to the next chunk if that chunk's size line has come already, and then waits for its data while it
// holds back what it has (contract row 3.1). With lines apart, it finds no further size line and returns. It works on plain
// text, so above TLS; only through HTTPS_PROXY, where net/http makes the TLS, may a chunk be held back.
type lineReader struct {
	from io.Reader
	rest []byte // read but not yet handed out
	buf  [4 << 10]byte
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		n, err := r.from.Read(r.buf[:])
		if n == 0 {
			return 0, err
		}
		r.rest = r.buf[:n]
	}
	end := len(r.rest)
	if i := bytes.Index(r.rest, []byte("\r\n")); i >= 0 {
		end = i + 2
	}
	n := copy(p, r.rest[:end])
	r.rest = r.rest[n:]
	return n, nil
}
