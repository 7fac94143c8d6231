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
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// h1Upstream is an HTTP/1.1 upstream that says, byte by byte, what the scripts of a test tell it to. It reads requests more strictly than
// net/http does, and fails the test over a request that has more than one reading.
type h1Upstream struct {
	t        *testing.T
	listener net.Listener
	scheme   string
	env      []string
	serving  sync.WaitGroup
	closing  chan struct{}

	mu      sync.Mutex
	scripts map[string]func(*h1request)
	conns   map[net.Conn]bool
	seen    []*h1request
	changed chan struct{} // closed and replaced when a request comes
}

func newH1Upstream(t *testing.T) *h1Upstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	return newH1UpstreamOn(t, listener, "http", nil)
}

func newH1UpstreamOn(t *testing.T, listener net.Listener, scheme string, env []string) *h1Upstream {
	u := &h1Upstream{t: t, listener: listener, scheme: scheme, env: env, closing: make(chan struct{}),
		scripts: map[string]func(*h1request){}, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	u.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			u.serving.Go(func() { u.serve(conn) })
		}
	})
	t.Cleanup(u.close)
	return u
}

func (u *h1Upstream) url() string           { return u.scheme + "://" + u.listener.Addr().String() }
func (u *h1Upstream) environment() []string { return u.env }

func (u *h1Upstream) close() {
	u.listener.Close()
	u.mu.Lock()
	select {
	case <-u.closing:
	default:
		close(u.closing)
	}
	for conn := range u.conns {
		conn.Close()
	}
	u.mu.Unlock()
	u.serving.Wait()
}

// on says what becomes of requests for a path. Others are answered with 200.
func (u *h1Upstream) on(path string, script func(*h1request)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.scripts[path] = script
}

// requests returns how many requests have come for a path.
func (u *h1Upstream) requests(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count(path)
}

func (u *h1Upstream) count(path string) (n int) {
	for _, r := range u.seen {
		if r.path == path {
			n++
		}
	}
	return n
}

// await waits until so many requests have come for a path.
func (u *h1Upstream) await(path string, n int) {
	u.t.Helper()
	await(u.t, fmt.Sprint(n, " requests for ", path, " reach the upstream"), &u.mu, &u.changed, func() bool { return u.count(path) >= n })
}

// reply answers as told, and closes the connection where the next request might otherwise come on what is left of it.
func (r *h1request) reply(answer string, want []end) {
	r.whole()
	r.say(answer)
	if !slices.Contains(want, answered) || strings.Contains(answer, "Connection: close") {
		r.fin()
	}
}

// all returns all requests that have come.
func (u *h1Upstream) all() []*h1request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[:len(u.seen):len(u.seen)]
}

func (u *h1Upstream) serve(conn net.Conn) {
	u.mu.Lock()
	u.conns[conn] = true
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.conns, conn)
		u.mu.Unlock()
		conn.Close()
	}()
	select {
	case <-u.closing:
		return
	default:
	}
	in := bufio.NewReaderSize(conn, 1<<20)
	for {
		r := &h1request{up: u, conn: conn, in: in, header: http.Header{}, received: make(chan struct{})}
		if !r.readHead() {
			return
		}
		var script func(*h1request)
		u.mu.Lock()
		u.seen = append(u.seen, r)
		script = u.scripts[r.path]
		close(u.changed)
		u.changed = make(chan struct{})
		u.mu.Unlock()
		if script == nil {
			script = func(r *h1request) {
				if r.whole() {
					r.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}
		}
		script(r)
		if r.over || !r.whole() {
			return
		}
	}
}

// h1request is one request and the connection it came on.
type h1request struct {
	up       *h1Upstream
	conn     net.Conn
	in       *bufio.Reader
	method   string
	path     string
	header   http.Header
	length   int
	body     string
	read     bool          // the body has been
	received chan struct{} // closed then
	over     bool          // the script has ended the connection
}

// readHead reads a request's head. There is one way to write it, and the proxy must.
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
			r.foul("a head that breaks off at %q", text)
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
	for _, name := range []string{"Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Connection", "Expect", "Proxy-Authorization"} {
		if values := r.header.Values(name); len(values) > 0 && !(name == "Connection" && values[0] == "close") {
			r.foul("the header %s: %q", name, values)
		}
	}
	for name := range r.header {
		if strings.Contains(strings.ToLower(name), smuggled) {
			r.foul("the header %s, which no client sent as one", name)
		}
	}
	if host := r.header.Values("Host"); len(host) != 1 || host[0] != r.up.listener.Addr().String() {
		r.foul("Host: %q", host)
	}
	lengths := r.header.Values("Content-Length")
	if len(lengths) > 1 {
		r.foul("the lengths %q", lengths)
	}
	if len(lengths) == 1 {
		if r.length, err = strconv.Atoi(lengths[0]); err != nil || r.length < 0 || strconv.Itoa(r.length) != lengths[0] {
			r.foul("the length %q", lengths[0])
		}
	}
	return true
}

func (r *h1request) foul(format string, args ...any) {
	r.up.t.Errorf("the proxy sends "+format, args...)
}

// whole reads the body. It returns false if it does not come.
func (r *h1request) whole() bool {
	if r.read {
		return true
	}
	text := make([]byte, r.length)
	if _, err := io.ReadFull(r.in, text); err != nil {
		return false
	}
	r.body, r.read = string(text), true
	close(r.received)
	return true
}

// say writes bytes. A connection that is gone is no error of the upstream's.
func (r *h1request) say(text string) {
	r.conn.SetWriteDeadline(time.Now().Add(patience))
	io.WriteString(r.conn, text)
}

// stream begins an answer that is a stream of events.
func (r *h1request) stream() {
	r.whole()
	r.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
}

// send sends a chunk.
func (r *h1request) send(text string) { r.say(chunk(text)) }

// finish sends a chunk, and the last one.
func (r *h1request) finish(text string) { r.say(chunk(text) + "0\r\n\r\n") }

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// pause waits for a word of the test.
func (r *h1request) pause(word <-chan struct{}) {
	select {
	case <-word:
	case <-r.up.closing:
	}
}

// gone waits until the proxy closes the connection.
func (r *h1request) gone() bool {
	r.conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, r.in)
	timeout, ok := err.(net.Error)
	if ok && timeout.Timeout() {
		r.up.t.Errorf("%s: the proxy does not close the connection", r.path)
		return false
	}
	r.over = true
	return true
}

// fin closes the connection.
func (r *h1request) fin() {
	r.over = true
	r.conn.Close()
}

// reset closes the connection by RST.
func (r *h1request) reset() {
	r.over = true
	if tcp, ok := r.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	r.conn.Close()
}
