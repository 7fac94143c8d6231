package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// answer is what the upstream does with a request.
type answer struct {
	name    string
	status  int    // what the client must see, with the body
	body    string //
	early   bool   // a 103 precedes it
	trailer bool   // a trailer follows it
	broken  bool   // it breaks off before its end
	silent  bool   // HTTP/1.1: the connection ends before the headers
	refused bool   // HTTP/2: the request has not been processed, so it may come once more

	head, rest string // over HTTP/1.1: up to the header section's end, and what follows unless it is HEAD
	closes     bool   // then the connection is closed
	frames     []byte // over HTTP/2: the frames instead of an answer, or after the body of one that is broken; the stream's id is filled in
	hangsUp    bool   // then the connection is closed
}

const (
	answerFields = "X-Answer: one\r\nConnection: x-hop, keep-alive\r\nX-Hop: leak\r\nKeep-Alive: timeout=5\r\nX-Answer: two\r\n" +
		"Proxy-Authenticate: leak\r\nUpgrade: leak\r\n"
	okHead = "HTTP/1.1 200 OK\r\n" + answerFields
)

var (
	resetProtocol = []byte{0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	resetInternal = []byte{0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2}
	resetRefused  = []byte{0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 7}
	goAwayBefore  = []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // the last stream is 0
	goAwayAfter   = []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}
)

var answers = []answer{
	{name: "a length", status: 200, body: "answer", head: okHead + "Content-Length: 6\r\n\r\n", rest: "answer"},
	{name: "chunks", status: 200, body: "answer", trailer: true, head: okHead + "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n",
		rest: "3;x=y\r\nans\r\n3\r\nwer\r\n0\r\nX-End: yes\r\n\r\n"},
	{name: "no content", status: 204, head: "HTTP/1.1 204 No Content\r\n" + answerFields + "\r\n"},
	{name: "not modified", status: 304, head: "HTTP/1.1 304 Not Modified\r\n" + answerFields + "Content-Length: 6\r\n\r\n"},
	{name: "early hints", status: 200, body: "answer", early: true, rest: "answer",
		head: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nUpgrade: leak\r\n\r\n" + okHead + "Content-Length: 6\r\n\r\n"},
	{name: "until the end", status: 200, body: "answer", head: strings.Replace(okHead, "x-hop, keep-alive\r\nX-Hop: leak", "close", 1) + "\r\n", rest: "answer", closes: true},
	{name: "overloaded", status: 529, body: `{"type":"error"}`, head: "HTTP/1.1 529 \r\n" + answerFields + "Content-Length: 16\r\n\r\n", rest: `{"type":"error"}`},
	{name: "large", status: 200, body: strings.Repeat("a", 40<<10), head: okHead + "Content-Length: 40960\r\n\r\n", rest: strings.Repeat("a", 40<<10)},
	{name: "not HTTP", status: 502, head: "220 mail.test ESMTP\r\n\r\n", closes: true, frames: resetProtocol},
	{name: "silence", status: 502, silent: true, closes: true, hangsUp: true},
	{name: "two lengths", status: 502, head: okHead + "Content-Length: 6\r\nContent-Length: 7\r\n\r\n", rest: "answer", closes: true, frames: resetInternal},
	{name: "an upgrade", status: 502, head: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", closes: true, frames: goAwayAfter, hangsUp: true},
	{name: "a refusal", status: 502, silent: true, closes: true, refused: true, frames: resetRefused},
	{name: "going away", status: 502, silent: true, closes: true, refused: true, frames: goAwayBefore, hangsUp: true},
	{name: "a broken length", status: 200, broken: true, head: okHead + "Content-Length: 60\r\n\r\n", rest: "answer", closes: true, body: "answer", frames: resetInternal},
	{name: "a broken chunk", status: 200, broken: true, head: okHead + "Transfer-Encoding: chunked\r\n\r\n", rest: "6\r\nanswer\r\n", closes: true, body: "answer", hangsUp: true},
}

// isWhole reports whether what breaks off in the body is whole, having none. The connection is kept then: if it were closed,
// the next request might be under way on it, and lost.
func (a *answer) isWhole(method string) bool { return a.broken && method == "HEAD" }

// arrival is a request that came upstream, in the words of HTTP/1.1.
type arrival struct {
	message
	fault    string // why it is none
	answer   *answer
	times    int // how often it came
	requests int // how many of the client's requests explain it
}

// key says what is the same when a request comes again; the order of headers is not.
func (a *arrival) key() string {
	m := a.message
	m.fields = slices.SortedStableFunc(slices.Values(m.fields), func(a, b field) int { return strings.Compare(a.name, b.name) })
	return fmt.Sprintf("%q", m)
}

// mayRepeat reports whether the same request may come again: HTTP/2 says that it has not been processed (contract row
// 2.6), or its method is safe and the connection, an older one, was closed.
func (a *arrival) mayRepeat(h2 bool) bool {
	if h2 {
		return a.answer.refused
	}
	return a.answer.silent && slices.Contains([]string{"GET", "HEAD", "OPTIONS", "TRACE"}, a.start[0])
}

// recordingUpstream notes every request. It speaks HTTP/1.1, or with a tls.Config HTTP/2, and reads both strictly.
type recordingUpstream struct {
	net.Listener
	config *tls.Config
	next   [2]int // which of answers the first request gets, and which the others

	mu       sync.Mutex
	changes  chan struct{} // closed and replaced at every change
	peers    []string      // of all connections
	open     []closeWriter
	arrivals []arrival
}

type closeWriter interface {
	net.Conn
	CloseWrite() error
}

func newRecordingUpstream(listener net.Listener, config *tls.Config) *recordingUpstream {
	u := &recordingUpstream{Listener: listener, config: config, changes: make(chan struct{})}
	go func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			conn, serve := accepted.(closeWriter), u.serveHTTP1
			if config != nil {
				conn, serve = tls.Server(accepted, config), u.serveHTTP2
			}
			u.change(func() {
				u.peers = append(u.peers, conn.RemoteAddr().String())
				u.open = append(u.open, conn)
			})
			go func() {
				if fault := serve(conn); fault != nil {
					u.arrive(arrival{fault: fault.Error()})
				}
				conn.Close()
				u.change(func() { u.open = slices.DeleteFunc(u.open, func(c closeWriter) bool { return c == conn }) })
			}()
		}
	}()
	return u
}

func (u *recordingUpstream) change(what func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	what()
	close(u.changes)
	u.changes = make(chan struct{})
}

// arrive notes a request and returns the answer to it.
func (u *recordingUpstream) arrive(a arrival) (given *answer) {
	u.change(func() {
		given = &answers[u.next[min(len(u.arrivals), 1)]]
		a.answer = given
		u.arrivals = append(u.arrivals, a)
	})
	return given
}

// settle waits until no more can arrive, and returns what did. The service is done with the client's connection, but what
// it wrote may still be under way: a connection made now is accepted after all of its connections, and those are closed by
// it once nothing comes from here any more. Whatever it has written is read before.
func (u *recordingUpstream) settle(t *testing.T) []arrival {
	t.Helper()
	barrier, err := net.Dial("tcp", u.Addr().String())
	assert.NilError(t, err)
	barrier.Close()
	deadline := time.After(patience)
	for {
		u.mu.Lock()
		open, changes, arrivals := slices.Clone(u.open), u.changes, u.arrivals
		accepted := slices.Contains(u.peers, barrier.LocalAddr().String())
		if accepted && len(open) == 0 {
			u.peers, u.arrivals = nil, nil
		}
		u.mu.Unlock()
		if accepted && len(open) == 0 {
			return arrivals
		}
		for _, conn := range open {
			if accepted && conn.CloseWrite() != nil { // before or during a TLS handshake
				conn.Close()
			}
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatalf("%d connections to the upstream are not closed", len(open))
		}
	}
}

func (u *recordingUpstream) serveHTTP1(conn closeWriter) error {
	text, buf := "", make([]byte, 32<<10)
	for {
		m, rest, err := readHead(text)
		if err == nil {
			rest, err = m.readBody(rest)
		}
		switch {
		case err == nil && (m.start[2] != "HTTP/1.1" || len(m.values("transfer-encoding")) > 0):
			return fmt.Errorf("no plain request: %q", m)
		case err == nil:
			text = rest
			a := u.arrive(arrival{message: m})
			io.WriteString(conn, a.head)
			if m.start[0] != "HEAD" {
				io.WriteString(conn, a.rest)
			}
			if a.closes && !a.isWhole(m.start[0]) {
				return nil
			}
			continue
		case err != errIncomplete:
			return err
		}
		n, err := conn.Read(buf)
		if err != nil {
			return nil // what is incomplete has been given up
		}
		text += string(buf[:n])
	}
}

// The frames and flags of RFC 9113 section 6.
