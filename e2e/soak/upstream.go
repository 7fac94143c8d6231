package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// upstream plays the API's part, over TLS, and misbehaves as each request's plan wants it to.
type upstream struct {
	url, caFile string

	book    *ledger
	http1   bool
	server  *httptest.Server
	closed  sync.Once
	pending atomic.Int64 // connections to ask the client off, each with the next answer there is
	hangups atomic.Int64 // those it was asked off

	mu    sync.Mutex
	links map[net.Conn]*link
	order []net.Conn // of their opening, so that chance can choose
}

const nameHeader = "X-Soak" // carries the name of the plan

type linkKey struct{}

func startUpstream(book *ledger, s settings, dir string) (*upstream, error) {
	u := &upstream{book: book, http1: s.protocol == "h1", links: map[net.Conn]*link{}, caFile: filepath.Join(dir, "ca.pem")}
	certificate, err := newCertificate()
	if err != nil {
		return nil, err
	}
	u.server = httptest.NewUnstartedServer(u)
	u.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	u.server.EnableHTTP2 = !u.http1
	u.server.Config.ErrorLog = log.New(io.Discard, "", 0) // it would note every connection that is reset
	u.server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		l := &link{entries: map[*entry]bool{}}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.links[conn] = l
		u.order = append(u.order, conn)
		return context.WithValue(ctx, linkKey{}, l)
	}
	u.server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			u.mu.Lock()
			defer u.mu.Unlock()
			delete(u.links, conn)
			u.order = slices.DeleteFunc(u.order, func(c net.Conn) bool { return c == conn })
		}
	}
	u.server.StartTLS()
	u.url = u.server.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: u.server.Certificate().Raw})
	return u, os.WriteFile(u.caFile, ca, 0o644)
}

// close ends everything.
func (u *upstream) close() {
	u.closed.Do(func() {
		u.server.CloseClientConnections()
		u.server.Close()
	})
}

// hangup asks the client off a connection, without harm: over HTTP/2 net/http turns the header into a GOAWAY.
func (u *upstream) hangup() { u.pending.Add(1) }

// reset resets one connection, whatever it carries.
func (u *upstream) reset(choose func(n int) int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.order) == 0 {
		return
	}
	conn := u.order[choose(len(u.order))]
	u.book.markReset(u.links[conn])
	abort(conn)
}

func abort(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn() // without TLS' own goodbye
	}
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, attempt := u.book.arrive(r.Header.Get(nameHeader), r.Context().Value(linkKey{}).(*link))
	if e == nil {
		w.WriteHeader(http.StatusGone)
		return
	}
	defer u.book.depart(e)
	for _, what := range u.inspect(e.plan, r) {
		u.book.complain(e, what)
	}
	w.Header().Set("Request-Id", "up-"+e.name)
	if e.deed == early {
		u.answer(w, e.plan, 0, 0)
		return
	}
	sum := crc32.New(castagnoli)
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has left, or the connection is gone
	}
	switch {
	case e.deed == drops:
		u.drop(w, hash(e.name)%2 == 0)
	case e.deed == stalls, e.deed == stallsOnce && attempt == 1:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case e.deed == streams:
		u.stream(w, r, e.plan)
	default:
		wait(r.Context(), nil, e.delay)
		u.answer(w, e.plan, size, sum.Sum32())
	}
}

// inspect returns what is wrong with the header of a request: the proxy is to add one token, and to change nothing else.
func (u *upstream) inspect(p plan, r *http.Request) (wrong []string) {
	check := func(name, want string) {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != want {
			wrong = append(wrong, fmt.Sprintf("%s arrived as %q, want %q", name, got, want))
		}
	}
	check("Authorization", "Bearer "+p.name)
	check("Anthropic-Beta", clientBeta+",oauth-2025-04-20")
	if r.Method != p.method || r.URL.Path != p.path || r.ContentLength != p.size {
		wrong = append(wrong, fmt.Sprintf("arrived as %s %s with %d bytes", r.Method, r.URL.Path, r.ContentLength))
	}
	if (r.ProtoMajor == 1) != u.http1 {
		wrong = append(wrong, "arrived over "+r.Proto)
	}
	return wrong
}

func (u *upstream) answer(w http.ResponseWriter, p plan, size int64, sum uint32) {
	if n := u.pending.Load(); n > 0 && u.pending.CompareAndSwap(n, n-1) {
		w.Header().Set("Connection", "close")
		u.hangups.Add(1)
	}
	text := answer(p, size, sum)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if p.status >= 400 {
		w.Header().Set("Retry-After", "7")
	}
	w.WriteHeader(p.status)
	io.WriteString(w, text)
}

// drop ends the request without a word more: over HTTP/2 with RST_STREAM, over HTTP/1.1 by closing the connection, rudely or
// not.
func (u *upstream) drop(w http.ResponseWriter, rudely bool) {
	if u.http1 {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if rudely {
				abort(conn)
			}
			conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

func (u *upstream) stream(w http.ResponseWriter, r *http.Request, p plan) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	control.Flush()
	var event []byte
	sent := 0
	var over <-chan struct{} = u.book.closing
	if p.ending == together {
		over = p.over
	}
	for ; sent < p.events || p.ending == together; sent++ {
		event = u.book.appendEvent(event[:0], p, sent)
		if _, err := w.Write(event); err != nil {
			return
		}
		control.Flush()
		if !wait(r.Context(), over, p.every) && (p.ending == whole || p.ending == together) {
			sent++
			break
		}
	}
	switch p.ending {
	case cut:
		u.drop(w, hash(p.name)%2 == 0)
	case silence:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	w.Write(appendStop(event[:0], p, sent))
}

// wait waits for d, and returns false if ctx ends or over is closed before that.
func wait(ctx context.Context, over <-chan struct{}, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}
