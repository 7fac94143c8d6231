package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"
)

const clientBeta = "soak-2025-01-01"

var (
	errLeft = errors.New("the client left, as planned")
	errHang = errors.New("the client gave up: nothing that is planned takes that long")
)

// client sends the requests.
type client struct {
	url     string
	book    *ledger
	tally   *tally
	timeout time.Duration // of the proxy
	http    *http.Client
}

func newClient(url string, book *ledger, t *tally, timeout time.Duration) *client {
	dialer := net.Dialer{Control: smallBuffer}
	return &client{url: url, book: book, tally: t, timeout: timeout, http: &http.Client{Transport: &http.Transport{
		DialContext:         dialer.DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 100, // after a wave, most connections are closed
		IdleConnTimeout:     30 * time.Second,
	}}}
}

// smallBuffer keeps what a client does not read from piling up on its own side.
func smallBuffer(_, _ string, conn syscall.RawConn) (err error) {
	controlErr := conn.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64*kib)
	})
	return errors.Join(err, controlErr)
}

// result is what the client has seen of a request.
type result struct {
	status int // 0: no headers came
	header http.Header
	text   string // of an answer that is no stream
	events int
	delays []time.Duration // of the events, if the client took them as they came
	bytes  int64           // of the body
	err    error           // of the way to the headers, or of the body
	left   bool            // the client left, as planned
	sent   certainty       // whether the proxy has seen the request
	untold bool            // the client left, and the upstream went on
}

// certainty is how sure it is that the proxy counts a request whose client left.
type certainty int

const (
	unsent certainty = iota
	maybeSent
	sent
)

// do makes one request as planned, and has it judged.
func (c *client) do(p plan) {
	p.sum = c.book.checksum(p)
	done := c.tally.begin(p)
	e := c.book.open(p)
	res := c.exchange(p)
	if res.left {
		patient, cancel := context.WithTimeout(context.Background(), patience)
		res.untold = !c.book.released(patient, e)
		cancel()
	}
	f := c.book.close(e, !res.left)
	done(res, judge(p, res, f, c.timeout), f)
}

func (c *client) exchange(p plan) (res result) {
	hang, cancel := context.WithTimeoutCause(context.Background(), p.length()+5*c.timeout+2*time.Minute, errHang)
	defer cancel()
	ctx, leave := context.WithCancelCause(hang)
	defer leave(nil) // ends what is left of a stalled upload
	body := &upload{Reader: bytes.NewReader(c.book.body(p)), ctx: ctx}
	arrived := func() {} // is called with the headers
	switch p.habit {
	case leavesUploading:
		body.limit, body.atLimit = p.size/2, func() { leave(errLeft) }
	case stallsUploading:
		body.limit = p.size / 2
	case leavesWaiting:
		leaving := time.AfterFunc(p.after, func() { leave(errLeft) })
		arrived = func() { leaving.Stop() }
	}
	var way trace
	defer func() {
		res.left, res.sent = context.Cause(ctx) == errLeft, way.sent(res.status, body)
		if res.err != nil && ctx.Err() != nil && !errors.Is(res.err, errWrongEvent) {
			res.err = context.Cause(ctx)
		}
	}()

	req, err := c.request(way.watch(ctx), p, body)
	if err != nil {
		return result{err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer resp.Body.Close()
	arrived()
	res.status, res.header = resp.StatusCode, resp.Header
	if p.deed == streams && resp.StatusCode == http.StatusOK {
		c.readEvents(ctx, leave, p, resp.Body, &res)
		return res
	}
	text, err := io.ReadAll(resp.Body)
	res.text, res.bytes, res.err = string(text), int64(len(text)), err
	return res
}

// trace watches a request on its way to the proxy.
type trace struct{ begun, written atomic.Bool }

func (t *trace) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { t.begun.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) { t.written.Store(info.Err == nil) },
	})
}

// sent says whether the proxy has seen the request. Its header goes with the first bytes of its body, and those are buffered.
func (t *trace) sent(status int, body *upload) certainty {
	switch {
	case status != 0 || t.written.Load() || body.taken.Load() > 64*kib:
		return sent
	case t.begun.Load():
		return maybeSent
	}
	return unsent
}

func (c *client) request(ctx context.Context, p plan, body *upload) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, p.method, c.url+p.path+"?beta=true", nil)
	if err != nil {
		return nil, err
	}
	if p.size > 0 {
		req.Body = io.NopCloser(body)
		req.ContentLength = p.size
		if p.chunked {
			req.ContentLength = -1
		}
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+p.name)
	req.Header.Set("Anthropic-Beta", clientBeta)
	req.Header.Set(nameHeader, p.name)
	return req, nil
}

// readEvents reads a stream as the plan's client does.
func (c *client) readEvents(ctx context.Context, leave context.CancelCauseFunc, p plan, body io.Reader, res *result) {
	counted := &countingReader{Reader: body}
	r := &eventReader{book: c.book, plan: p, lines: bufio.NewReader(counted)}
	defer func() { res.events, res.bytes = r.events, counted.n }()
	unhurried := p.habit == readsSlowly || p.habit == pausesReading
	for {
		if p.habit == leavesReading && r.events == p.seen {
			leave(errLeft)
		}
		if p.habit == readsSlowly || p.habit == pausesReading && r.events == p.seen {
			wait(ctx, nil, p.after)
		}
		delay, err := r.next()
		if err == io.EOF {
			return
		}
		if err != nil {
			res.err = err
			return
		}
		if !unhurried && !r.stopped {
			res.delays = append(res.delays, delay)
		}
	}
}

func (r result) String() string {
	text := fmt.Sprintf("status %d, %d events, %d bytes", r.status, r.events, r.bytes)
	if r.err != nil {
		text += fmt.Sprintf(", %v", r.err)
	}
	if r.status >= 400 {
		text += fmt.Sprintf(", %.300q", r.text)
	}
	if r.header != nil {
		text += ", " + r.header.Get("X-Proxy-Request-Id")
	}
	return text
}
