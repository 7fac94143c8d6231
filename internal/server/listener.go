package server

import (
	"net"
	"time"
)

// plainListener notices clients that speak TLS to this plain port. net/http answers them with a 400 that they cannot read, and
// says nothing.
type plainListener struct {
	*net.TCPListener
	warn func()
}

// Accept waits for the next connection.
func (l *plainListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &plainConn{TCPConn: c, warn: l.warn}, nil
}

type plainConn struct {
	*net.TCPConn
	warn func() // nil once the first byte has come
}

// tlsHandshake is the first byte of every TLS connection, its record's content type (RFC 8446 section 5.1). No request of
// HTTP/1.1 begins with it.
const tlsHandshake = 22

// Read notes the first byte. net/http has one reader at a time.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 && c.warn != nil {
		if p[0] == tlsHandshake {
			c.warn()
		}
		c.warn = nil
	}
	return n, err
}

// warnTLS logs that a client speaks TLS, at most once a minute (contract section 8).
func (s *Server) warnTLS() {
	now, last := time.Now().Unix(), s.warnedTLS.Load()
	if now-last >= 60 && s.warnedTLS.CompareAndSwap(last, now) {
		s.opts.Logger.Warn("a client speaks TLS to this plain HTTP port: its base URL should begin with http://, not https://")
	}
}
