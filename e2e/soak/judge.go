package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verdict is what came of a request. The zero value is: what was asked for.
type verdict struct {
	cause   string // why it failed or was broken off, if that is explained
	problem string // what is unexplained
}

const causeReset = "the upstream reset the connection"

// lateness is how long an event may be on its way before it counts as held back (contract row 3.1). It takes milliseconds
// on an idle machine.
const lateness = 10 * time.Second

// judge compares what a plan wants with what its two ends have seen.
func judge(p plan, res result, f facts, timeout time.Duration) verdict {
	want := p.want(timeout)
	switch {
	case len(f.wrong) > 0:
		return verdict{problem: "at the upstream: " + strings.Join(f.wrong, "; ")}
	case f.arrivals > want.attempts && p.method == http.MethodPost: // what is safe may be repeated (row 2.6)
		return verdict{problem: fmt.Sprintf("the upstream received it %d times, want %d", f.arrivals, want.attempts)}
	case errors.Is(res.err, errWrongEvent), errors.Is(res.err, errHang):
		return verdict{problem: res.err.Error()}
	case res.status == 0 && !res.left:
		return verdict{problem: "no answer"}
	}
	if problem := heldBack(p, res); problem != "" {
		return verdict{problem: problem}
	}
	if res.status != 0 {
		if problem := headerProblem(p, res); problem != "" {
			return verdict{problem: problem}
		}
	}
	if res.left {
		if res.untold {
			return verdict{problem: fmt.Sprintf("the client left, and %v later the upstream had not been told", patience)}
		}
		return verdict{cause: "the client " + string(p.habit)}
	}
	problem := want.differs(p, res)
	switch {
	case problem == "" && f.arrivals < want.attempts && !f.reset:
		return verdict{problem: fmt.Sprintf("the upstream received it %d times, want %d", f.arrivals, want.attempts)}
	case problem == "":
		return verdict{cause: want.cause}
	case f.reset && brokenByReset(res):
		return verdict{cause: causeReset}
	}
	return verdict{problem: problem}
}

// heldBack says whether events did not come at once: one of them was far too late, or, as it is when each waits for the next,
// none of many was faster than the pace of a slow stream. A machine that is busy for a while delays many, but not all.
func heldBack(p plan, res result) string {
	for n, delay := range res.delays {
		if delay > lateness {
			return fmt.Sprintf("event %d was %v on its way", n, delay)
		}
	}
	if len(res.delays) >= 10 && p.every >= 500*time.Millisecond && slices.Min(res.delays) >= p.every {
		return fmt.Sprintf("no event was faster than %v, the pace of the stream", p.every)
	}
	return ""
}

// brokenByReset reports whether a request failed as the contract has it for a connection that is reset: 502 before the
// headers (row 2.6), an abort after them (row 3.4).
func brokenByReset(res result) bool {
	if res.err == nil {
		return res.status == http.StatusBadGateway && isOwnError(res)
	}
	return res.status != 0 && !isOwnError(res)
}

// expectation is what a plan wants to come of it, as long as its client stays.
type expectation struct {
	status   int
	attempts int    // that the upstream sees
	broken   bool   // the answer is aborted
	own      string // what the proxy's own error says, if it is to make one
	cause    string
}

func (p plan) want(timeout time.Duration) expectation {
	w := expectation{status: p.status, attempts: 1}
	switch p.deed {
	case stallsOnce:
		w.attempts = 2
	case stalls:
		w.attempts = 1 + p.retries
		w.status, w.cause = http.StatusGatewayTimeout, "504: no headers in time"
		w.own = fmt.Sprintf("timeout after %vs (%d attempts)", timeout.Seconds(), w.attempts)
	case drops:
		w.status, w.own, w.cause = http.StatusBadGateway, "upstream connection failed", "502: dropped before the headers"
	}
	switch p.ending {
	case cut:
		w.broken, w.cause = true, "aborted: cut by the upstream"
	case silence:
		w.broken, w.cause = true, "aborted: silence of the upstream"
	}
	switch p.habit {
	case stallsUploading:
		w = expectation{status: http.StatusBadRequest, own: "request body stalled", cause: "400: the client " + string(stallsUploading)}
	case leavesUploading:
		w.attempts = 0 // the proxy takes the whole body first
	}
	if p.tooLarge {
		w = expectation{status: http.StatusBadRequest, own: "request body too large", cause: "400: too large"}
	}
	return w
}

// differs says how a result differs from what is wanted; "" if it does not.
func (w expectation) differs(p plan, res result) string {
	switch {
	case res.status != w.status:
		return fmt.Sprintf("want status %d", w.status)
	case w.broken && res.err == nil:
		return "want it aborted, not ended"
	case w.broken:
		return ""
	case res.err != nil:
		return "want a whole answer"
	case w.own != "":
		if !isOwnError(res) || !strings.Contains(res.text, w.own) {
			return fmt.Sprintf("want an error of the proxy that says %q", w.own)
		}
		if w.status == http.StatusGatewayTimeout && res.header.Get("X-Should-Retry") != "false" {
			return "want x-should-retry: false"
		}
		return ""
	case p.deed == streams:
		return "" // the reader has compared every event
	}
	return w.differsInAnswer(p, res)
}

func (w expectation) differsInAnswer(p plan, res result) string {
	text := answer(p, p.size, p.sum)
	if p.deed == early {
		text = answer(p, 0, 0)
	}
	if got := res.header.Get("Content-Length"); got != strconv.Itoa(len(text)) {
		return fmt.Sprintf("the answer's length is declared as %q, want %d", got, len(text))
	}
	if p.method == http.MethodHead {
		text = ""
	}
	if res.text != text {
		return fmt.Sprintf("the answer is %.300q, want %q", res.text, text)
	}
	if p.status >= 400 && res.header.Get("Retry-After") != "7" {
		return "the answer's Retry-After is gone"
	}
	return ""
}

// headerProblem looks at the two ids that every answer has (contract row 3.6 and section 3).
func headerProblem(p plan, res result) string {
	own, upstreams := res.header.Get("X-Proxy-Request-Id"), res.header.Get("Request-Id")
	if !strings.HasPrefix(own, "req_") {
		return fmt.Sprintf("x-proxy-request-id is %q", own)
	}
	if want := "up-" + p.name; upstreams != want && !(upstreams == own && isOwnError(res)) {
		return fmt.Sprintf("request-id is %q, want %q", upstreams, want)
	}
	return ""
}

func isOwnError(res result) bool { return strings.Contains(res.text, `"type":"proxy_error"`) }

// checksum is what the upstream is to make of a plan's body.
func (b *ledger) checksum(p plan) uint32 { return crc32.Checksum(b.body(p), castagnoli) }
