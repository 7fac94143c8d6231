package server

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"time"
)

// plainListener reads what clients send before net/http does. It detects TLS on this plain port. net/http itself would answer with a 400
// that such a client cannot read. It also limits the lines of an incomplete head, which net/http does not.
type plainListener struct {
	*net.TCPListener
	warn func() // called when a client speaks TLS
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
	warn  func() // nil after the first byte
	lines int    // of the head that is being read; -1 while its request is handled
}

const (
	// tlsHandshake is the first byte of every TLS connection, its record's content type (RFC 8446 section 5.1). No request of
	// HTTP/1.1 begins with it.
	tlsHandshake = 22
	// maxHeadLines limits the memory of incomplete heads. The proxy's own limit is lower, and the proxy logs what it refuses (contract section 4).
	maxHeadLines = 512
)

// Read reads for net/http and counts the lines of a head. One read may also bring lines of the body, and they are counted too. So Read
// refuses only when net/http asks for more of a head that already has too many.
func (c *plainConn) Read(p []byte) (int, error) {
	if c.lines > maxHeadLines {
		io.WriteString(c.TCPConn, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return 0, io.EOF
	}
	n, err := c.TCPConn.Read(p)
	if n > 0 && c.warn != nil {
		if p[0] == tlsHandshake {
			c.warn()
		}
		c.warn = nil
	}
	if c.lines >= 0 {
		c.lines += bytes.Count(p[:n], []byte{'\n'})
	}
	return n, err
}

// count begins or ends the counting of lines. net/http reads nothing meanwhile.
func (c *plainConn) count(state http.ConnState) {
	switch state {
	case http.StateIdle:
		c.lines = 0
	case http.StateActive:
		c.lines = -1
	}
}

// warnTLS logs that a client speaks TLS, at most once a minute (contract section 8).
func (s *Server) warnTLS() {
	now, last := time.Now().Unix(), s.warnedTLS.Load()
	if now-last >= 60 && s.warnedTLS.CompareAndSwap(last, now) {
		s.opts.Logger.Warn("a client speaks TLS to this plain HTTP port: its base URL should begin with http://, not https://")
	}
}
