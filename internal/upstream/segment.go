package upstream

import (
	"bytes"
	"net"
)

// segmentedConn hands out at most one line at a time, to make net/http deliver a chunk as soon as it is complete. Its
// reader of chunked encoding goes on to the next chunk if that chunk's size line has come already, and then waits for its
// data while it holds back what it has (contract row 3.1). With lines apart, it finds no further size line and returns.
//
// It works on plain text, so it is only for http:// upstreams; over https:// HTTP/2 has no such lines, and an HTTPS upstream
// that speaks HTTP/1.1 only remains as net/http has it.
type segmentedConn struct {
	net.Conn
	rest []byte // read but not yet handed out
	buf  [4 << 10]byte
}

func (c *segmentedConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		n, err := c.Conn.Read(c.buf[:])
		if n == 0 {
			return 0, err
		}
		c.rest = c.buf[:n]
	}
	end := len(c.rest)
	if i := bytes.Index(c.rest, []byte("\r\n")); i >= 0 {
		end = i + 2
	}
	n := copy(p, c.rest[:end])
	c.rest = c.rest[n:]
	return n, nil
}
