package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A proxy that does one thing wrong is found out, and one that does nothing wrong is not.
func TestJudge(t *testing.T) {
	message := plan{method: http.MethodPost, path: "/v1/messages", size: 100 * kib, deed: answers, status: http.StatusOK}
	stream := message
	stream.deed, stream.events, stream.every, stream.text = streams, 10, 5*time.Millisecond, 300
	refused, head, cutOff, dropped, leaving := message, message, stream, message, stream
	refused.status = http.StatusTooManyRequests
	head.method, head.size = http.MethodHead, 0
	cutOff.ending = cut
	dropped.deed = drops
	leaving.habit, leaving.seen = leavesReading, 3

	for _, test := range []struct {
		name    string
		plan    plan
		wrong   wrong
		problem string // part of what is found; empty: nothing is
		cause   string
	}{
		{name: "message", plan: message},
		{name: "error", plan: refused},
		{name: "HEAD", plan: head},
		{name: "stream", plan: stream},
		{name: "cut stream", plan: cutOff, cause: "aborted: cut by the upstream"},
		{name: "dropped request", plan: dropped, cause: "502: dropped before the headers"},
		{name: "client that leaves", plan: leaving, cause: "the client leaves while reading"},

		{name: "another answer", plan: message, wrong: wrong{answer: replace(`"bytes":1`, `"bytes":2`)}, problem: "the answer is"},
		{name: "another status", plan: refused, wrong: wrong{header: func(r *http.Response) { r.StatusCode = 500 }}, problem: "want status 429"},
		{name: "no Retry-After", plan: refused, wrong: wrong{header: without("Retry-After")}, problem: "Retry-After is gone"},
		{name: "no length", plan: head, wrong: wrong{header: without("Content-Length")}, problem: "length is declared"},
		{name: "no id of the proxy", plan: message, wrong: wrong{header: without("X-Proxy-Request-Id")}, problem: "x-proxy-request-id"},
		{name: "another id of the upstream", plan: message, wrong: wrong{header: without("Request-Id")}, problem: "request-id"},
		{name: "another body", plan: message, wrong: wrong{request: func(r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			body[5000]++
			r.Body = io.NopCloser(bytes.NewReader(body))
		}}, problem: "the answer is"},
		{name: "no token added", plan: message, wrong: wrong{request: func(r *http.Request) { r.Header.Set("Anthropic-Beta", clientBeta) }}, problem: "Anthropic-Beta arrived as"},
		{name: "another path", plan: message, wrong: wrong{request: func(r *http.Request) { r.URL.Path = "/v1" }}, problem: "arrived as POST /v1 "},
		{name: "sent twice", plan: message, wrong: wrong{twice: true}, problem: "received it 2 times"},
		{name: "event lost", plan: stream, wrong: wrong{answer: func(body string) string {
			return body[:strings.Index(body, "event: delta")] + body[strings.LastIndex(body, "event: delta"):]
		}}, problem: "event 0 is"},
		{name: "event changed", plan: stream, wrong: wrong{answer: func(body string) string { return body[:200] + "!" + body[201:] }}, problem: "event 0 is"},
		{name: "end lost", plan: stream, wrong: wrong{answer: func(body string) string { return body[:strings.Index(body, "event: stop")] }}, problem: "a clean end after 10 events"},
		{name: "clean end of a cut stream", plan: cutOff, wrong: wrong{answer: func(body string) string { return body }}, problem: "a clean end"},
		{name: "retried", plan: dropped, wrong: wrong{twice: true}, problem: "received it 2 times"},
	} {
		for _, protocol := range []string{"h2", "h1"} {
			t.Run(test.name+" over "+protocol, func(t *testing.T) {
				book := newLedger(1, mib)
				up, err := startUpstream(book, settings{protocol: protocol}, t.TempDir())
				assert.NilError(t, err)
				defer up.close()
				proxy := httptest.NewServer(test.wrong.proxy(t, up))
				defer proxy.Close()
				seen := newTally(io.Discard)
				p := test.plan
				p.name, p.kind = "test-1", test.name
				newClient(proxy.URL, book, seen, time.Minute).do(p)
				if test.problem == "" {
					assert.Equal(t, strings.Join(seen.failures, "\n"), "")
					assert.Equal(t, seen.causes[test.cause], min(1, len(test.cause)))
					return
				}
				assert.Equal(t, seen.unexpected, 1)
				assert.Check(t, is.Contains(seen.failures[0], test.problem))
			})
		}
	}
}

// What a connection's reset explains, and what it does not.
func TestReset(t *testing.T) {
	own := `{"error":{"type":"proxy_error","message":"upstream connection failed"}}`
	header := http.Header{"X-Proxy-Request-Id": {"req_1"}, "Request-Id": {"req_1"}}
	passedOn := http.Header{"X-Proxy-Request-Id": {"req_1"}, "Request-Id": {"up-test-1"}}
	stream := plan{name: "test-1", method: http.MethodPost, deed: streams, status: http.StatusOK, events: 10}
	refused := result{status: http.StatusBadGateway, header: header, text: own}
	broken := result{status: http.StatusOK, header: passedOn, err: io.ErrUnexpectedEOF}
	aborted := result{err: io.EOF}
	clean := result{status: http.StatusOK, header: passedOn, err: errWrongEvent}

	for _, res := range []result{refused, broken} {
		assert.Check(t, is.Equal(judge(stream, res, facts{arrivals: 1, reset: true}, 0), verdict{cause: causeReset}))
		assert.Check(t, judge(stream, res, facts{arrivals: 1}, 0).problem != "", "no connection was reset")
		assert.Check(t, judge(stream, res, facts{arrivals: 2, reset: true}, 0).problem != "", "it was repeated")
	}
	for _, res := range []result{aborted, clean} {
		assert.Check(t, judge(stream, res, facts{arrivals: 1, reset: true}, 0).problem != "", "%v", res)
	}
}

func TestHeldBack(t *testing.T) {
	stream := plan{every: time.Second}
	for _, test := range []struct {
		delays []time.Duration
		held   bool
	}{
		{delays: slices.Repeat([]time.Duration{time.Millisecond}, 10)},
		{delays: append(slices.Repeat([]time.Duration{time.Second}, 9), time.Millisecond)},
		{delays: slices.Repeat([]time.Duration{time.Second}, 10), held: true},
		{delays: []time.Duration{time.Millisecond, time.Minute}, held: true},
	} {
		assert.Check(t, is.Equal(heldBack(stream, result{delays: test.delays}) != "", test.held), "%v", test.delays)
	}
}

func TestClientLeft(t *testing.T) {
	p := plan{name: "test-1", method: http.MethodPost, habit: leavesWaiting, deed: answers, status: http.StatusOK}
	assert.Equal(t, judge(p, result{left: true, err: errLeft}, facts{arrivals: 1}, 0).cause, "the client leaves while waiting")
	assert.Assert(t, judge(p, result{left: true, err: errLeft, untold: true}, facts{arrivals: 1}, 0).problem != "")
	p.habit = leavesUploading
	assert.Assert(t, judge(p, result{left: true, err: errLeft}, facts{arrivals: 1}, 0).problem != "", "its body was not whole")
	assert.Assert(t, judge(p, result{err: errHang}, facts{}, 0).problem != "")
}

// wrong is what a proxy does wrong.
type wrong struct {
	request func(*http.Request)
	header  func(*http.Response)
	answer  func(string) string // its body, which is then no stream any more
	twice   bool                // sends it again, and takes the second answer
}

func replace(from, to string) func(string) string {
	return func(body string) string { return strings.Replace(body, from, to, 1) }
}

func without(name string) func(*http.Response) {
	return func(r *http.Response) { r.Header.Del(name) }
}

// proxy does what the soak wants, but for w.
func (w wrong) proxy(t *testing.T, up *upstream) http.Handler {
	target, err := url.Parse(up.url)
	assert.NilError(t, err)
	pem, err := os.ReadFile(up.caFile)
	assert.NilError(t, err)
	roots := x509.NewCertPool()
	assert.Assert(t, roots.AppendCertsFromPEM(pem))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // it notes what is meant to happen
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Anthropic-Beta", clientBeta+",oauth-2025-04-20")
			if w.request != nil {
				w.request(r.Out)
			}
		},
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if !w.twice {
				return transport.RoundTrip(r)
			}
			body, err := io.ReadAll(r.Body)
			assert.Check(t, err)
			again := r.Clone(r.Context())
			r.Body, again.Body = io.NopCloser(bytes.NewReader(body)), io.NopCloser(bytes.NewReader(body))
			if resp, err := transport.RoundTrip(r); err == nil {
				resp.Body.Close()
			}
			return transport.RoundTrip(again)
		}),
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("X-Proxy-Request-Id", "req_1")
			if w.header != nil {
				w.header(r)
			}
			if w.answer != nil {
				body, _ := io.ReadAll(r.Body) // of a cut stream: what there is of it
				r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader(w.answer(string(body))))
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("X-Proxy-Request-Id", "req_1")
			w.Header().Set("Request-Id", "req_1")
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, `{"error":{"type":"proxy_error","message":"upstream connection failed"}}`)
		},
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
