package proxy_test

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
)

// Row 2.6: a POST that may have been read is never repeated, whatever bytes an answer has that was not HTTP.
func TestUnprocessedIsNotWhatAnAnswerSays(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nx; REFUSED_STREAM\r\n\r\n",
		"HTTP/1.1 200 OK\r\nx net/http: TLS handshake timeout\r\n\r\n",
		"HTTP/1.1 200 OK\r\nx http2: client connection lost\r\n\r\n",
	} {
		var posts atomic.Int64
		g := start(t, serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
			readMessage(in)
			posts.Add(1)
			io.WriteString(conn, answer)
		}))
		g.post(t, "hello")
		assert.Check(t, posts.Load() == 1, "%q: the POST was run %d times", answer, posts.Load())
	}
}
