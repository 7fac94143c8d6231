package h2

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxStreams is how many exchanges share a connection, and its fate, even if the peer would allow more.
const maxStreams = 100

// Options are the times after which a connection is given up.
type Options struct {
	SettingsTimeout time.Duration // for the peer's first frame, which a usable connection needs
	PingAfter       time.Duration // silence of the peer before it is asked for a sign of life
	PingTimeout     time.Duration // for that sign
	IdleTimeout     time.Duration // without any exchange
}

// Transport sends requests over HTTP/2 where the upstream speaks it, and leaves the others to an http.Transport. It is for
// one upstream: every connection is taken to lead there.
type Transport struct {
	opts  Options
	base  *http.Transport
	http1 atomic.Bool // the upstream chose HTTP/1.1 last time

	mu      sync.Mutex
	conns   []*conn // those that may take requests, oldest first
	dialing *dial   // under way, or nil
}

// dial is one that others wait for, so that a crowd of requests opens one connection and not one each.
type dial struct {
	began   time.Time
	done    chan struct{}
	failed  bool // set before done is closed
	useless int  // connections that were over before the request for which they were made could begin
}

const (
	// maxUseless ends the attempts to dial an upstream that closes every connection at once.
	maxUseless = 3
	// patience is how long a request waits for another's dial before it makes its own: a handshake that hangs, until its
	// request gives up, is not to hold up everybody.
	patience = 2 * time.Second
)

// New returns a Transport that dials by base, whose TLS settings it completes. base must be used by nobody else.
func New(base *http.Transport, opts Options) *Transport {
	t := &Transport{base: base, opts: opts}
	if base.TLSClientConfig == nil {
		base.TLSClientConfig = &tls.Config{}
	}
	base.TLSClientConfig.NextProtos = []string{http2ALPN, "http/1.1"}
	base.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{
		http2ALPN: func(_ string, c *tls.Conn) http.RoundTripper { return t.adopt(c) },
	}
	return t
}

const http2ALPN = "h2"

// RoundTrip implements http.RoundTripper. The body of a request that may have to be sent again needs GetBody.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return t.base.RoundTrip(req)
	}
	resp, err := t.send(req)
	if err != errUnprocessed {
		return resp, err
	}
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, ErrRefused
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.WithContext(req.Context())
		req.Body = body
	}
	resp, err = t.send(req)
	if err == errUnprocessed {
		err = ErrRefused
	}
	return resp, err
}

// send sends the request once, over a connection that has room for it or a new one.
func (t *Transport) send(req *http.Request) (*http.Response, error) {
	for {
		if req.Context().Err() != nil {
			closeBody(req)
			return nil, context.Cause(req.Context())
		}
		if c, s := t.start(req); c != nil {
			return c.finish(req, s)
		}
		if t.http1.Load() {
			return t.dial(req, &dial{began: time.Now()})
		}
		t.mu.Lock()
		d := t.dialing
		if d == nil {
			d = &dial{began: time.Now(), done: make(chan struct{})}
			t.dialing = d
			t.mu.Unlock()
			return t.dial(req, d)
		}
		t.mu.Unlock()
		select {
		case <-d.done:
			if d.failed && !t.hasConn() { // to wait for others' luck again could take for ever
				return t.dial(req, &dial{began: time.Now()})
			}
		case <-time.After(patience):
			t.dialed(d, false)
		case <-req.Context().Done():
		}
	}
}

// dial lets the http.Transport dial for req, which then goes over the new connection, whatever it speaks.
func (t *Transport) dial(req *http.Request, d *dial) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { // called for HTTP/1.1 only
			t.http1.Store(true)
			t.dialed(d, false)
		},
	})
	resp, err := t.base.RoundTrip(req.WithContext(context.WithValue(ctx, dialKey{}, d)))
	t.dialed(d, req.Context().Err() == nil) // if the request left, that says nothing about the upstream
	return resp, err
}

type dialKey struct{}

// dialed lets those go on who wait for a dial, if any still do.
func (t *Transport) dialed(d *dial, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d == t.dialing {
		d.failed = failed
		close(d.done)
		t.dialing = nil
	}
}

// start begins the request's stream on the first connection that takes it.
func (t *Transport) start(req *http.Request) (*conn, *stream) {
	t.mu.Lock()
	conns := t.conns // never changed in place
	t.mu.Unlock()
	for _, c := range conns {
		if s := c.start(req); s != nil {
			return c, s
		}
	}
	return nil, nil
}

func (t *Transport) hasConn() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns) > 0
}

// adopt takes over a connection on which the upstream chose HTTP/2, for as long as it lives.
func (t *Transport) adopt(nc net.Conn) http.RoundTripper {
	c, err := newConn(nc, t.opts, t.remove)
	if err == ErrClosed {
		return adopted{t, nil, time.Now()} // the request was not sent, so it may try another connection
	}
	if err != nil {
		return failed{err}
	}
	t.mu.Lock()
	t.conns = append(slices.Clone(t.conns), c)
	t.mu.Unlock()
	if c.isOver() { // perhaps before it was on the list
		t.remove(c)
	}
	t.http1.Store(false)
	return adopted{t, c, time.Now()}
}

// remove takes a connection off the list that takes no further streams.
func (t *Transport) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = slices.DeleteFunc(slices.Clone(t.conns), func(other *conn) bool { return other == c })
}

// CloseIdleConnections closes the connections that carry no exchange.
func (t *Transport) CloseIdleConnections() {
	t.base.CloseIdleConnections()
	t.mu.Lock()
	conns := t.conns
	t.mu.Unlock()
	for _, c := range conns {
		c.closeIfIdle()
	}
}

// adopted is what http.Transport keeps of a connection that it has handed over.
type adopted struct {
	t     *Transport
	c     *conn // nil if it ended at once
	since time.Time
}

// RoundTrip sends req, for which http.Transport was to dial, over any connection that takes it. Only then do the others go
// on that wait for the dial, or they would leave nothing of it for req.
func (a adopted) RoundTrip(req *http.Request) (*http.Response, error) {
	d := req.Context().Value(dialKey{}).(*dial)
	if c, s := a.t.start(req); c != nil {
		a.t.dialed(d, false)
		return c.finish(req, s)
	}
	if a.since.After(d.began) && (a.c == nil || !a.c.mayTake()) { // else it is an old one, or others were faster
		if d.useless++; d.useless > maxUseless {
			closeBody(req)
			return nil, ErrClosed
		}
	}
	return nil, errNoConn{}
}

// failed is what http.Transport gets for a connection that turned out useless: the request's error.
type failed struct{ err error }

func (f failed) RoundTripErr() error { return f.err } // the name is how http.Transport knows it

// RoundTrip is not called.
func (f failed) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
