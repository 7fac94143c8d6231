package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// newClient returns a client with its own connections, which are closed at the end of the test.
func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// get makes one request on a new connection.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	return do(t, http.MethodGet, url, "")
}

func do(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	assert.NilError(t, err)
	req.Close = true
	resp, err := newClient(t).Do(req)
	assert.NilError(t, err)
	return resp, readBody(t, resp)
}

func readBody(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	return string(text)
}

// newUpstream starts a stand-in for the API.
func newUpstream(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	upstream := httptest.NewServer(handler)
	t.Cleanup(func() {
		upstream.CloseClientConnections()
		upstream.Close()
	})
	return upstream.URL
}

// echo answers 200 with the target that reached the upstream.
func echo(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "upstream saw "+r.RequestURI)
}

// stream is an upstream that sends the events that the test gives it. For paths below /plain/ it is an echo.
type stream struct {
	url    string
	events chan string // the next event of the oldest running answer; closing it ends the answer
}

func newStream(t *testing.T) *stream {
	s := &stream{events: make(chan string)}
	s.url = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/plain/") {
			echo(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		control := http.NewResponseController(w)
		control.Flush()
		for {
			select {
			case event, more := <-s.events:
				if !more {
					return
				}
				io.WriteString(w, event)
				control.Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	return s
}

// send makes the upstream send an event.
func (s *stream) send(t *testing.T, event string) {
	t.Helper()
	select {
	case s.events <- event:
	case <-time.After(patience):
		t.Fatalf("after %v no running answer has taken the event %q", patience, event)
	}
}

// receive receives from a channel.
func receive[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("after %v still waiting for %s", patience, what)
	}
	return v
}

// open begins a streamed request on a new connection, and returns the response when its headers have arrived.
func open(t *testing.T, url string) *http.Response {
	t.Helper()
	resp, err := newClient(t).Post(url, "application/json", strings.NewReader("{}"))
	assert.NilError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	return resp
}

// readExactly reads the given text and no more from a response.
func readExactly(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	assert.NilError(t, err)
	assert.Equal(t, string(got), want)
}

// rawConn is a client's connection on which a test writes and reads bytes itself.
type rawConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *rawConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	assert.NilError(t, err)
	t.Cleanup(func() { conn.Close() })
	assert.NilError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &rawConn{conn, t, bufio.NewReader(conn)}
}

// request sends one request without a body, byte for byte, and reads the response.
func (c *rawConn) request(method, target string, headers ...string) (*http.Response, string) {
	c.t.Helper()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: proxy.test\r\n", method, target)
	for _, h := range headers {
		head += h + "\r\n"
	}
	_, err := io.WriteString(c, head+"\r\n")
	assert.NilError(c.t, err)
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	assert.NilError(c.t, err)
	return resp, readBody(c.t, resp)
}
