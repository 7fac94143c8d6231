//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
)

var (
	errLeft = errors.New("the client left, as planned")
	errHang = errors.New("the client gave up: no plan takes that long")
)

// lateness is how long an event may take to arrive. On an idle machine it takes milliseconds.
const lateness = 10 * time.Second

// result is what a client received.
type result struct {
	status int // 0: no headers arrived
	own    string
	events int
	err    error
	left   bool // as planned
}

// exchange makes one request as the plan says.
func (l *load) exchange(p plan) (res result) {
	longest := 5*l.timeout + 2*time.Minute + time.Duration(p.Events)*(p.Every+p.after)
	hang, cancel := context.WithTimeoutCause(context.Background(), longest, errHang)
	defer cancel()
	ctx, leave := context.WithCancelCause(hang)
	defer leave(nil) // ends a stalled upload
	defer func() {
		if cause := context.Cause(ctx); cause != nil && res.err != nil && !errors.Is(res.err, client.ErrWrongBytes) {
			res.left, res.err = cause == errLeft, cause
		}
	}()
	var body io.Reader = bytes.NewReader(l.body[:p.size])
	arrived := func() {}
	switch p.habit {
	case leavesUploading, stallsUploading:
		half, w := io.Pipe()
		body = half
		context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
		go func() {
			if _, err := w.Write(l.body[:p.size/2]); err == nil && p.habit == leavesUploading {
				leave(errLeft)
			}
		}()
	case leavesWaiting:
		leaving := time.AfterFunc(p.after, func() { leave(errLeft) })
		arrived = func() { leaving.Stop() }
	}
	length := p.size
	if p.chunked {
		length = -1
	}
	response, err := l.client.Do(ctx, p.method, p.Part.String(), body, length)
	if err != nil {
		return result{err: err}
	}
	defer response.Body.Close()
	arrived()
	res.status = response.StatusCode
	switch {
	case p.Events > 0 && res.status == http.StatusOK:
		res.events, res.err = readEvents(ctx, leave, p, response)
	case res.status != max(p.Status, http.StatusOK):
		text, err := io.ReadAll(response.Body)
		if res.own, res.err = string(text), err; !strings.Contains(res.own, `"type":"proxy_error"`) {
			res.err = fmt.Errorf("%w: status %d with %.200q", client.ErrWrongBytes, res.status, text)
		}
	case p.method == http.MethodHead:
		_, res.err = io.Copy(io.Discard, response.Body)
	default:
		res.err = client.Check(response.Body, p.Part, l.body[:p.size])
	}
	return res
}

// readEvents reads a stream as the plan's client does.
func readEvents(ctx context.Context, leave context.CancelCauseFunc, p plan, response *http.Response) (int, error) {
	stream, err := client.NewStream(response, p.Part)
	if err != nil {
		return 0, err
	}
	unhurried := p.habit == readsSlowly || p.habit == pausesReading
	for {
		switch {
		case p.habit == leavesReading && stream.Events == p.seen:
			leave(errLeft)
		case p.habit == readsSlowly, p.habit == pausesReading && stream.Events == p.seen:
			pause(ctx, p.after)
		}
		_, delay, err := stream.Next()
		switch {
		case err == io.EOF:
			return stream.Events, nil
		case err != nil:
			return stream.Events, err
		case delay > lateness && !unhurried:
			return stream.Events, fmt.Errorf("%w: an event was held back for %v", client.ErrWrongBytes, delay)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// judge returns how the result differs from the plan, or "".
func (p plan) judge(res result) (problem string) {
	own, whole := res.own != "", p.own == "" && !p.broken && res.status == p.status && res.err == nil
	refusal := res.status == p.status || p.status == refused && res.status > 400 && res.status < 500
	switch {
	case errors.Is(res.err, client.ErrWrongBytes) || errors.Is(res.err, errHang):
		return res.err.Error()
	case whole, res.left,
		p.broken && res.status == http.StatusOK && res.err != nil && res.events == p.Events,
		p.own != "" && own && refusal && strings.Contains(res.own, p.own):
		return ""
	}
	return fmt.Sprintf("want status %d, aborted: %v, our own: %q", p.status, p.broken, p.own)
}
