package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// event is what streams consist of. half is what is left of one that breaks off.
const (
	event = "event: ping\ndata: {\"type\":\"ping\"}\n\n"
	half  = "event: ping\nda"
)

// client is a client's connection with one request on it, byte by byte.
type client struct {
	net.Conn
	t      *testing.T
	in     *bufio.Reader
	method string
	path   string
	hints  []*http.Response // informational responses that came before the response
	res    *http.Response   // nil until the headers are read
	body   strings.Builder  // what has been read of the body
}

// answer is what a client has seen in the end.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // nil: the answer came to its proper end
}

// allDeclared reports whether the body has the length that the head promised. What an upstream does after that, a client cannot see.
func (a answer) allDeclared(method string) bool {
	switch a.status {
	case 0:
		return false
	case http.StatusNoContent, http.StatusNotModified:
		return true
	}
	return method == http.MethodHead || a.header.Get("Content-Length") == strconv.Itoa(len(a.body))
}

// smuggled is in the name of headers that upstreams hide in places where they are none.
const smuggled = "smuggled"

func (a answer) String() string {
	body := a.body
	if len(body) > 300 {
		body = fmt.Sprintf("%s… (%d bytes)", body[:300], len(body))
	}
	return fmt.Sprintf("status %d, body %q, error %v", a.status, body, a.err)
}

// dial opens a client's connection.
func (w *world) dial() *client {
	w.t.Helper()
	conn, err := net.DialTimeout("tcp", w.p.addr, patience)
	assert.NilError(w.t, err)
	c := &client{Conn: conn, t: w.t, in: bufio.NewReader(conn)}
	w.mu.Lock()
	w.clients = append(w.clients, c)
	w.mu.Unlock()
	return c
}

// post sends a POST with a body.
func (w *world) post(path, body string) *client {
	w.t.Helper()
	return w.request("POST", path, body)
}

// request sends a whole request.
func (w *world) request(method, path, body string) *client {
	w.t.Helper()
	c := w.dial()
	c.method, c.path = method, path
	c.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer %s\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s",
		method, path, secret, len(body), body))
	return c
}

// open sends a POST and reads the headers and the first event of a stream.
func (w *world) open(path string) *client {
	w.t.Helper()
	c := w.post(path, "{}")
	c.expect(event)
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	c.SetWriteDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.Conn, text)
	assert.NilError(c.t, err)
}

// head reads the response's head, if it has not been read.
func (c *client) head() error {
	c.SetReadDeadline(time.Now().Add(patience))
	for c.res == nil {
		res, err := http.ReadResponse(c.in, &http.Request{Method: c.method})
		if err != nil {
			return err
		}
		if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			c.hints = append(c.hints, res)
			continue
		}
		c.res = res
	}
	return nil
}

// expect reads exactly this from the body, and leaves the rest.
func (c *client) expect(text string) {
	c.t.Helper()
	assert.NilError(c.t, c.head(), c.path)
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.res.Body, got)
	c.body.Write(got[:n])
	assert.NilError(c.t, err, "%s: status %d, read %q", c.path, c.res.StatusCode, got[:n])
	assert.Equal(c.t, string(got), text)
}

// rest reads the response to its end, whatever end that is.
func (c *client) rest() answer {
	c.t.Helper()
	if err := c.head(); err != nil {
		return answer{err: err}
	}
	text, err := io.ReadAll(&patient{c})
	c.body.Write(text)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		c.t.Fatalf("%s: the response does not end (status %d, body so far %q)", c.path, c.res.StatusCode, c.body.String())
	}
	return answer{c.res.StatusCode, c.res.Header, c.res.Trailer, c.body.String(), err}
}

// patient reads a body, however long it takes in total.
type patient struct{ c *client }

func (p *patient) Read(b []byte) (int, error) {
	p.c.SetReadDeadline(time.Now().Add(patience))
	return p.c.res.Body.Read(b)
}

// abort closes the connection by a reset.
func (c *client) abort() { c.leave("reset") }

// leave ends the connection in one of the three ways that TCP has.
func (c *client) leave(how string) {
	c.t.Helper()
	conn := c.Conn.(*net.TCPConn)
	switch how {
	case "half-close":
		assert.NilError(c.t, conn.CloseWrite())
	case "reset":
		conn.SetLinger(0)
		conn.Close()
	case "close":
		conn.Close()
	default:
		c.t.Fatalf("there is no %q", how)
	}
}
