package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

// answer is the upstream's reaction to a request.
type answer struct {
	status     int // what the client must see
	body       string
	early      bool   // a 103 precedes it
	trailer    bool   // a trailer follows it
	broken     bool   // it breaks off
	head, rest string // up to the end of the header section, and the rest, which HEAD does not get
	closes     bool   // the connection is closed afterwards
}

const (
	answerFields = "X-Answer: one\r\nConnection: x-hop, keep-alive\r\nX-Hop: leak\r\nKeep-Alive: timeout=5\r\nX-Answer: two\r\n" +
		"Proxy-Authenticate: leak\r\nUpgrade: leak\r\n"
	okHead = "HTTP/1.1 200 OK\r\n" + answerFields
)

var answers = []answer{
	{status: 200, body: "answer", head: okHead + "Content-Length: 6\r\n\r\n", rest: "answer"},
	{status: 200, body: "answer", trailer: true, head: okHead + "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n",
		rest: "3;x=y\r\nans\r\n3\r\nwer\r\n0\r\nX-End: yes\r\n\r\n"},
	{status: 204, head: "HTTP/1.1 204 No Content\r\n" + answerFields + "\r\n"},
	{status: 304, head: "HTTP/1.1 304 Not Modified\r\n" + answerFields + "Content-Length: 6\r\n\r\n"},
	{status: 200, body: "answer", early: true, rest: "answer",
		head: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nUpgrade: leak\r\n\r\n" + okHead + "Content-Length: 6\r\n\r\n"},
	{status: 200, body: "answer", head: strings.Replace(okHead, "x-hop, keep-alive\r\nX-Hop: leak", "close", 1) + "\r\n", rest: "answer", closes: true},
	{status: 529, body: "answer", head: "HTTP/1.1 529 \r\n" + answerFields + "Content-Length: 6\r\n\r\n", rest: "answer"},
	{status: 200, body: strings.Repeat("a", 40<<10), head: okHead + "Content-Length: 40960\r\n\r\n", rest: strings.Repeat("a", 40<<10)},
	{status: 502, head: "220 mail.test ESMTP\r\n\r\n", closes: true},
	{status: 502, head: okHead + "Content-Length: 6\r\nContent-Length: 7\r\n\r\n", rest: "answer", closes: true},
	{status: 502, head: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", closes: true},
	{status: 200, broken: true, head: okHead + "Content-Length: 60\r\n\r\n", rest: "answer", closes: true, body: "answer"},
	{status: 200, broken: true, head: okHead + "Transfer-Encoding: chunked\r\n\r\n", rest: "6\r\nanswer\r\n", closes: true, body: "answer"},
}

// arrival is a request that arrived upstream.
type arrival struct {
	message
	fault  error // why it is not a valid request
	answer *answer
}

// recordingUpstream parses strictly and records every request.
type recordingUpstream struct {
	net.Listener
	next    [2]int // index of the answer to the first request, and to the others
	serving sync.WaitGroup

	mu       sync.Mutex
	arrivals []arrival
}

func newRecordingUpstream(t *testing.T, first, others int) *recordingUpstream {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	u := &recordingUpstream{Listener: listener, next: [2]int{first, others}}
	u.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.(*net.TCPConn).CloseWrite()
			u.serving.Go(func() {
				defer conn.Close()
				u.serve(conn)
			})
		}
	})
	return u
}

// end returns everything that has arrived. The service must have ended. Its last bytes may still be in flight, so end reads its
// connections to their end.
func (u *recordingUpstream) end() []arrival {
	u.Close()
	u.serving.Wait()
	return u.arrivals
}

// serve answers requests until the connection ends. It ignores a request that is incomplete then.
func (u *recordingUpstream) serve(conn net.Conn) {
	text, buf := "", make([]byte, 32<<10)
	for {
		m, rest, err := readHead(text)
		if err == nil {
			rest, err = m.readBody(rest)
		}
		if err == nil && len(m.Values("transfer-encoding")) > 0 {
			err = errors.New("the length is not declared")
		}
		if err == errIncomplete {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			text += string(buf[:n])
			continue
		}
		u.mu.Lock()
		a := &answers[u.next[min(len(u.arrivals), 1)]]
		u.arrivals = append(u.arrivals, arrival{m, err, a})
		u.mu.Unlock()
		if err != nil {
			return
		}
		text = rest
		io.WriteString(conn, a.head)
		if m.method != "HEAD" {
			io.WriteString(conn, a.rest)
		}
		if a.closes && !(a.broken && m.method == "HEAD") { // without a body it is complete, and the next request may be in flight
			return
		}
	}
}
