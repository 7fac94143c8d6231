package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
)

// event is the event of which all streams consist. half is the part of it that arrives if the stream breaks off.
const (
	event = "event: ping\ndata: {\"type\":\"ping\"}\n\n"
	half  = "event: ping\nda"
)

// conn is a client's connection with one request. Tests write and read it byte by byte.
type conn struct {
	net.Conn
	t      *testing.T
	in     *bufio.Reader
	method string
	path   string
	res    *http.Response  // nil until the headers are read
	body   strings.Builder // what has been read of the body
}

// answer is what a client received in the end.
type answer struct {
	status int
	body   string
	err    error // nil: the answer ended properly
}

func (a answer) String() string {
	return fmt.Sprintf("status %d, %d bytes: %.300q, error %v", a.status, len(a.body), a.body, a.err)
}

// dial opens a connection to the proxy.
func (w *world) dial() *conn {
	w.t.Helper()
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(w.p.URL, "http://"), patience)
	assert.NilError(w.t, err)
	dialed := &conn{Conn: c, t: w.t, in: bufio.NewReaderSize(c, 512)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients = append(w.clients, dialed)
	return dialed
}

// post sends a POST with a body.
func (w *world) post(path, body string) *conn {
	w.t.Helper()
	return w.request("POST", path, body)
}

// request sends a whole request.
func (w *world) request(method, path, body string) *conn {
	w.t.Helper()
	return w.begin(method, path, fmt.Sprintf("Authorization: Bearer %s\r\nIdempotency-Key: k\r\nContent-Length: %d", client.Token, len(body)), body)
}

// begin sends the beginning of a request.
func (w *world) begin(method, path, header, body string) *conn {
	w.t.Helper()
	c := w.dial()
	c.again(method, path, header, body)
	return c
}

// again sends a request on a connection that may have carried others.
func (c *conn) again(method, path, header, body string) {
	c.t.Helper()
	c.method, c.path, c.res = method, path, nil
	c.body.Reset()
	c.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: proxy\r\n%s\r\n\r\n%s", method, path, header, body))
}

// open sends a POST and reads the headers and the first event of a stream.
func (w *world) open(path string) *conn {
	w.t.Helper()
	c := w.post(path, "{}")
	c.expect(event)
	return c
}

func (c *conn) send(text string) {
	c.t.Helper()
	assert.NilError(c.t, write(c.Conn, text))
}

// head reads the response's status and headers unless that has been done.
func (c *conn) head() error {
	c.SetReadDeadline(time.Now().Add(30*time.Second + patience)) // as long as connecting may take (contract row 2.1)
	for c.res == nil {
		res, err := http.ReadResponse(c.in, &http.Request{Method: c.method})
		if err != nil {
			return err
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			c.res = res
		}
	}
	return nil
}

// expect reads exactly this text from the body and no more.
func (c *conn) expect(text string) {
	c.t.Helper()
	assert.NilError(c.t, c.head(), c.path)
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.res.Body, got)
	c.body.Write(got[:n])
	assert.NilError(c.t, err, "%s: status %d, read %q", c.path, c.res.StatusCode, got[:n])
	assert.Equal(c.t, string(got), text)
}

// rest reads the response to its end, whichever way it ends.
func (c *conn) rest() answer {
	c.t.Helper()
	if err := c.head(); err != nil {
		assert.Assert(c.t, !isTimeout(err), "%s: there is no response", c.path)
		return answer{err: err}
	}
	text, err := io.ReadAll(patient{c})
	c.body.Write(text)
	assert.Assert(c.t, !isTimeout(err), "%s: the response does not end (status %d, body so far %.300q)", c.path, c.res.StatusCode, c.body.String())
	return answer{c.res.StatusCode, c.body.String(), err}
}

// patient reads a body. It limits each read, not the total time.
type patient struct{ *conn }

func (p patient) Read(b []byte) (int, error) {
	p.SetReadDeadline(time.Now().Add(patience))
	return p.res.Body.Read(b)
}

// closed waits for the end of the connection and returns what arrived before.
func (c *conn) closed() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c.in)
	assert.Assert(c.t, !isTimeout(err), "the connection stays open")
	return string(text)
}

// isTimeout reports whether a read or write reached its deadline.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// The three ways to end a TCP connection.
var ways = []string{"close", "half-close", "reset"}

// leave ends the connection in one of the ways.
func (c *conn) leave(way string) {
	c.t.Helper()
	tcp := c.Conn.(*net.TCPConn)
	switch way {
	case "half-close":
		assert.NilError(c.t, tcp.CloseWrite())
		return
	case "reset":
		tcp.SetLinger(0)
	}
	tcp.Close()
}
