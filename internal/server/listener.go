package server

import (
	"io"
	"net"
	"time"
)

// plainListener reads what clients send before net/http does. It detects TLS on this plain port. net/http itself would answer with a 400
// that such a client cannot read. It also limits the lines of an incomplete head, which net/http does not.
type plainListener struct {
	*net.TCPListener
	warn func() // a client speaks TLS
}

// Accept waits for the next connection.
func (l *plainListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	c.SetWriteBuffer(sendBuffer)
	return &plainConn{TCPConn: c, warn: l.warn}, nil
}

// sendBuffer is how many bytes of an answer the kernel buffers for a client. The kernel doubles it for its own use. By default it would
// grow to megabytes, which cgroup v2 counts: 200 clients that did not read took 408 MB. At 80 ms this size still allows about 2 MB/s.
const sendBuffer = 128 << 10

type plainConn struct {
	*net.TCPConn
	warn      func() // nil after the first byte
	headLines int    // lines of the current head; -1 after its end
	lineBytes int    // bytes of the current line
}

const (
	// tlsHandshake is the first byte of every TLS connection, its record's content type (RFC 8446 section 5.1). No request of
	// HTTP/1.1 begins with it.
	tlsHandshake = 22
	// maxHeadLines limits the memory of parsed heads. The proxy's own limit is lower, and logs a line (contract section 4).
	maxHeadLines = 512
)

// Read reads for net/http, which has one reader at a time and sets headLines to 0 between two requests.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 && c.warn != nil {
		if p[0] == tlsHandshake {
			c.warn()
		}
		c.warn = nil
	}
	if c.headLines >= 0 && c.tooManyLines(p[:n]) {
		io.WriteString(c.TCPConn, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return 0, io.EOF
	}
	return n, err
}

// tooManyLines counts the lines of a head, up to the empty line at its end.
func (c *plainConn) tooManyLines(p []byte) bool {
	for _, b := range p {
		switch {
		case b == '\n' && c.lineBytes == 0 && c.headLines > 0:
			c.headLines = -1
			return false
		case b == '\n':
			c.headLines++
			c.lineBytes = 0
		case b != '\r':
			c.lineBytes++
		}
	}
	return c.headLines > maxHeadLines
}

// warnTLS logs that a client speaks TLS, at most once a minute (contract section 8).
func (s *Server) warnTLS() {
	now, last := time.Now().Unix(), s.warnedTLS.Load()
	if now-last >= 60 && s.warnedTLS.CompareAndSwap(last, now) {
		s.opts.Logger.Warn("a client speaks TLS to this plain HTTP port: its base URL should begin with http://, not https://")
	}
}
