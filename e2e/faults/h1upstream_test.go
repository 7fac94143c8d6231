package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// h1Upstream is an HTTP/1.1 upstream that sends exactly the bytes that a test's script says. It parses requests more strictly than
// net/http, and fails the test if a request is ambiguous.
type h1Upstream struct{ *stage[*h1request] }

func newH1Upstream(t *testing.T) h1Upstream { return newH1UpstreamOn(t, listen(t), "http") }

func newH1UpstreamOn(t *testing.T, listener net.Listener, scheme string) h1Upstream {
	u := h1Upstream{newStage[*h1request](t, listener, scheme)}
	u.start(u.serve)
	return u
}

func (u h1Upstream) follow(path string, s script) { u.on(path, func(r *h1request) { s.play(r) }) }

func (u h1Upstream) serve(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1<<20)
	for {
		r := &h1request{stage: u.stage, conn: conn, in: in, header: http.Header{}, received: make(chan struct{})}
		if !r.readHead() {
			return
		}
		if script := u.accept(r); script != nil {
			script(r)
		} else if r.whole() {
			r.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		if r.over || !r.whole() {
			return
		}
	}
}

// h1request is one request and the connection it came on.
type h1request struct {
	*stage[*h1request]
	conn     net.Conn
	in       *bufio.Reader
	method   string
	path     string
	header   http.Header
	length   int
	body     string
	received chan struct{} // closed when the body has been read
	over     bool          // the script has ended the connection
}

// readHead reads a request's head. It accepts only one way to write it.
func (r *h1request) readHead() bool {
	start, err := r.in.ReadString('\n')
	if err != nil {
		if start != "" {
			r.foul("half a request line: %q", start)
		}
		return false
	}
	parts := strings.Split(strings.TrimSuffix(start, "\r\n"), " ")
	if len(parts) != 3 || parts[2] != "HTTP/1.1" || !strings.HasSuffix(start, "\r\n") || !strings.HasPrefix(parts[1], "/") && start != "OPTIONS * HTTP/1.1\r\n" {
		r.foul("the request line %q", start)
		return false
	}
	r.method, r.path = parts[0], parts[1]
	for {
		text, err := r.in.ReadString('\n')
		if err != nil {
			r.foul("a truncated head, up to %q", text)
			return false
		}
		if text == "\r\n" {
			break
		}
		name, value, ok := strings.Cut(strings.TrimSuffix(text, "\r\n"), ": ")
		if !ok || !strings.HasSuffix(text, "\r\n") || name == "" || strings.ContainsAny(name, " \t\r\n:\x00") || strings.ContainsAny(value, "\r\n\x00") {
			r.foul("the header line %q", text)
			return false
		}
		r.header.Add(name, value)
	}
	for name, values := range r.header {
		switch name {
		case "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Connection", "Expect", "Proxy-Authorization":
			if name != "Connection" || values[0] != "close" {
				r.foul("the header %s: %q", name, values)
			}
		}
	}
	if host := r.header.Values("Host"); len(host) != 1 || host[0] != r.listener.Addr().String() {
		r.foul("Host: %q", host)
	}
	if lengths := r.header.Values("Content-Length"); len(lengths) > 0 {
		if r.length, err = strconv.Atoi(lengths[0]); err != nil || r.length < 0 || !slices.Equal(lengths, []string{strconv.Itoa(r.length)}) {
			r.foul("the lengths %q", lengths)
		}
	}
	return true
}

func (r *h1request) foul(format string, args ...any) { r.t.Errorf("the proxy sends "+format, args...) }

func (r *h1request) target() string { return r.path }

func (r *h1request) whole() bool {
	if isClosed(r.received) {
		return true
	}
	text := make([]byte, r.length)
	if _, err := io.ReadFull(r.in, text); err != nil {
		return false
	}
	r.body = string(text)
	close(r.received)
	return true
}

func (r *h1request) unread() {}

func (r *h1request) aside() {} // over HTTP/1.1 no other request can use the connection meanwhile

// say sends bytes.
func (r *h1request) say(text string) bool { return write(r.conn, text) == nil }

func (r *h1request) stream() {
	r.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
}

func (r *h1request) send(text string) bool { return r.say(chunk(text)) }

func (r *h1request) finish(text string) { r.say(chunk(text) + "0\r\n\r\n") }

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// gone waits until the proxy closes the connection.
func (r *h1request) gone() bool {
	r.conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, r.in)
	r.over = true
	if isTimeout(err) {
		r.t.Errorf("%s: the proxy does not close the connection", r.path)
	}
	return !isTimeout(err)
}

// fin closes the connection.
func (r *h1request) fin() {
	r.over = true
	r.conn.Close()
}

// reset closes the connection by RST.
func (r *h1request) reset() {
	if tcp, ok := r.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	r.fin()
}
