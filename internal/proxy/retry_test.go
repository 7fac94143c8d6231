package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestTimeout covers rows 2.2, 2.3 and 2.4: attempts whose headers do not come in time are repeated with identical
// head and body, then 504.
func TestTimeout(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	for _, again := range []int{0, 1, 2, 5} {
		t.Run(fmt.Sprint("retries ", again), func(t *testing.T) {
			t.Parallel()
			attempts := make(chan string, 20)
			upstreamURL := serveRaw(t, func(_ net.Conn, in *bufio.Reader, _ int) {
				head, text, err := readMessage(in)
				if err != nil {
					return
				}
				attempts <- strings.Join(head, "\n") + text
				in.ReadByte() // until the proxy closes the connection
			})
			g := start(t, upstreamURL, timeout(limit), retries(again))
			text := strings.Repeat("0123456789", 5000)
			began := time.Now()
			res := g.answer(t, fmt.Sprintf("POST /v1?a=b HTTP/1.1\r\nHost: p\r\nIdempotency-Key: i\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: %d\r\n\r\n%s",
				len(text), text))
			message := assertOurError(t, res, http.StatusGatewayTimeout)
			assert.Assert(t, strings.Contains(message, fmt.Sprintf("timeout after 0.4s (%d attempts)", again+1)), message)
			assert.Equal(t, res.Header.Get("X-Should-Retry"), "false")
			assert.Equal(t, g.metric(t, `proxy_upstream_retries_total{previous="may_have_been_read"}`), float64(again))
			pauses := time.Duration(again) * 100 * time.Millisecond
			assert.Assert(t, time.Since(began) >= time.Duration(again+1)*limit+pauses, "attempts were too short, or there was no pause between them")
			first := within(t, attempts, "the first attempt")
			assert.Assert(t, strings.HasPrefix(first, "POST /v1?a=b HTTP/1.1\n") && strings.HasSuffix(first, text))
			for range again {
				assert.Assert(t, within(t, attempts, "the next attempt") == first, "an attempt differs from the first")
			}
			assert.Equal(t, len(attempts), 0, "more attempts than allowed")
			line := g.finished(t)
			assert.Equal(t, line["attempts"], float64(again+1))
			assert.Equal(t, line["status"], 504.0)
			assert.Equal(t, g.retried(t), float64(again))
			assert.Equal(t, g.metric(t, `proxy_upstream_errors_total{error_type="timeout"}`), 1.0, "requests are counted, not attempts")
			assert.Equal(t, strings.Count(g.log.String(), `"level":"WARN","msg":"retry: the upstream may have run the request`), again, "every retry is logged at warn")
			assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
		})
	}
}

// TestTimeoutThenAnswer covers row 2.3: the answer to a later attempt is the client's, and ends the retrying.
func TestTimeoutThenAnswer(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if requests.Add(1)%3 != 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable) // not retried for its status either
		w.Write(text)
	}, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, timeout(700*time.Millisecond))
		res := g.post(t, "hello")
		assert.Equal(t, res.StatusCode, http.StatusServiceUnavailable)
		assert.Equal(t, body(t, res), "hello")
		assert.Equal(t, g.finished(t)["attempts"], 3.0)
	})
}

// TestTimeoutWhileConnecting covers rows 2.1 and 2.4: if the peer accepts the connection but not the TLS handshake, nothing was sent, and
// the error says so.
func TestTimeoutWhileConnecting(t *testing.T) {
	t.Parallel()
	upstreamURL := serveRaw(t, func(_ net.Conn, in *bufio.Reader, _ int) { io.Copy(io.Discard, in) })
	g := start(t, strings.Replace(upstreamURL, "http:", "https:", 1), timeout(150*time.Millisecond), retries(1))
	res := g.post(t, "a")
	message := assertOurError(t, res, http.StatusGatewayTimeout)
	assert.Assert(t, strings.Contains(message, "timeout after 0.15s (2 attempts): TLS: the handshake did not finish"), message)
	assert.DeepEqual(t, res.Header["X-Should-Retry"], []string(nil))
	assert.Equal(t, g.metric(t, `proxy_upstream_retries_total{previous="nothing_sent"}`), 1.0)
	assert.Equal(t, strings.Count(g.log.String(), `"msg":"retry: nothing of the request was sent"`), 1)
}

// once is what row 2.6 demands of a failure: one attempt, 502, and the reason in our own words.
func once(t *testing.T, g *gateway, res *http.Response, reason string) {
	t.Helper()
	message := assertOurError(t, res, http.StatusBadGateway)
	assert.Assert(t, !strings.Contains(message, "hush"), "the message quotes the upstream: %s", message)
	assert.Assert(t, strings.Contains(message, reason), "%q should be named: %s", reason, message)
	g.ended(t, 502, "complete", 1)
	assert.Equal(t, g.metric(t, `proxy_upstream_errors_total{error_type="connection"}`), 1.0)
	assert.Equal(t, g.retried(t), 0.0)
	assert.Assert(t, !strings.Contains(g.log.String(), "hush"), "the log quotes the upstream")
	assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
}

// TestNoRetry covers row 2.6: a connection that fails or an answer that is not HTTP is a 502 after one attempt. On a connection that has
// served before, net/http would repeat a request that carries an idempotency key although the upstream has read it.
func TestNoRetry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer string
		reset        bool
		reason       string // if it depends on one of net/http's texts, this test guards that text
	}{
		{"FIN", "", false, "the upstream closed the connection"},
		{"RST", "", true, "connection reset"},
		{"FIN within the status line", "HTTP/1.1 20", false, "the answer was not valid HTTP"},
		{"FIN within the headers", "HTTP/1.1 200 OK\r\nX-A: hush\r\n", false, "the upstream closed the connection"},
		{"RST within the headers", "HTTP/1.1 200 OK\r\nX-A: hush\r\n", true, ""},
		{"garbage", "hush hush hush\r\n\r\n", false, "the answer was not valid HTTP"},
		{"a header without a colon", "HTTP/1.1 200 OK\r\nhush hush\r\n\r\n", false, "the answer was not valid HTTP"},
		{"text of net/http's in a header: refused", "HTTP/1.1 200 OK\r\nhush; REFUSED_STREAM\r\n\r\n", false, "the answer was not valid HTTP"},
		{"text of net/http's in a header: handshake", "HTTP/1.1 200 OK\r\nhush net/http: TLS handshake timeout\r\n\r\n", false, "the answer was not valid HTTP"},
		{"a status below 100", "HTTP/1.1 099 hush\r\n\r\n", false, "the answer was not valid HTTP"},
		{"a status that is none", "HTTP/1.1 hush OK\r\n\r\n", false, "the answer was not valid HTTP"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhush", false, "the answer was not valid HTTP"},
		{"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: hush\r\n\r\n", false, "the answer was not valid HTTP"},
		{"an unknown encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: hush\r\n\r\n", false, "the answer was not valid HTTP"},
		{"HTTP/2 to an HTTP/1.1 request", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", false, "the answer was not valid HTTP"},
		{"101 (row 1.4)", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhush", false, "the upstream switched protocols without being asked"},
		{"103 and FIN", "HTTP/1.1 103 Early Hints\r\nLink: hush\r\n\r\n", false, "the upstream closed the connection"},
	} {
		for _, request := range []string{
			"POST /body HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
			"POST /empty HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
			"PATCH /body HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
			"DELETE /empty HTTP/1.1\r\n\r\n",
			"GET /body HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
		} {
			line, _, _ := strings.Cut(request, " HTTP")
			for _, reused := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, reused %v", tt.name, line, reused), func(t *testing.T) {
					t.Parallel()
					var requests atomic.Int64
					upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, nth int) {
						for {
							if _, _, err := readMessage(in); err != nil {
								return
							}
							if n := requests.Add(1); reused && n != 2 {
								fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Connection: %d\r\nContent-Length: 0\r\n\r\n", nth)
								continue
							}
							io.WriteString(conn, tt.answer)
							if tt.reset {
								conn.(*net.TCPConn).SetLinger(0)
							}
							return
						}
					})
					g := start(t, upstreamURL)
					want := int64(1)
					if reused {
						assert.Equal(t, g.get(t, "/").Header.Get("X-Connection"), "1")
						g.finished(t)
						want++
					}
					res := g.answer(t, strings.Replace(request, "\r\n", "\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
						"Idempotency-Key: i\r\nX-Idempotency-Key: i\r\n", 1))
					once(t, g, res, tt.reason)
					assert.Equal(t, requests.Load(), want, "the request was sent again")
					if reused { // the proxy still works
						assert.Equal(t, g.get(t, "/").Header.Get("X-Connection"), "2")
					}
				})
			}
		}
	}
}

// TestNoConnection covers row 2.6: refused, unknown name, TLS failure.
func TestNoConnection(t *testing.T) {
	t.Parallel()
	tls := serveHTTP2(t, func(http.ResponseWriter, *http.Request) {})
	plain := serveUpstream(t, func(http.ResponseWriter, *http.Request) {})
	silent := serveH2(t, func(conn net.Conn, in *bufio.Reader) {
		conn.(interface{ CloseWrite() error }).CloseWrite() // a close with something unread would be a reset
		io.Copy(io.Discard, in)
	})
	for _, tt := range []struct{ name, url, reason string }{
		{"refused", "http://127.0.0.1:1", "connection refused"},
		{"unknown name", "http://upstream.invalid", "cannot resolve the upstream's name"},
		{"certificate for another name", strings.Replace(tls.URL, "127.0.0.1", "localhost", 1), "TLS: the upstream's certificate is for another name"},
		{"HTTP/2 that closes before its SETTINGS", silent, "the upstream closed the connection"},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), "TLS: the upstream does not speak TLS on this port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, tt.url)
			once(t, g, g.post(t, "a"), tt.reason)
		})
	}
}

// TestHTTP2 covers row 2.6 over HTTP/2. A request that the upstream may have read is never sent again. One that the protocol proves
// unprocessed is sent again, within the same attempt. net/http repeats requests without a body by its own rules.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	reset := func(code uint32) func(*h2request) bool {
		return func(r *h2request) bool { r.reset(code); return true }
	}
	for _, tt := range []struct {
		name   string
		first  func(r *h2request) bool // what becomes of the request when it is sent first
		resent bool
		reason string // in the error, if it is not; if it depends on one of net/http's texts, this test guards that text
	}{
		{"RST_STREAM PROTOCOL_ERROR", reset(codeProtocol), false, "reset the HTTP/2 stream (PROTOCOL_ERROR)"},
		{"RST_STREAM INTERNAL_ERROR", reset(codeInternal), false, "reset the HTTP/2 stream (INTERNAL_ERROR)"},
		{"RST_STREAM REFUSED_STREAM", reset(codeRefused), true, ""},
		{"GOAWAY beyond the last stream", func(r *h2request) bool { r.goAway(0, codeNo); return true }, true, ""},
		{"GOAWAY, stream may be processed, then FIN", func(r *h2request) bool { r.goAway(r.stream, codeNo); return false }, false, "closed the HTTP/2 connection"},
		{"GOAWAY with an error, then FIN", func(r *h2request) bool { r.goAway(r.stream, codeInternal); return false }, false, "closed the HTTP/2 connection"},
		{"FIN", func(*h2request) bool { return false }, false, "the upstream closed the connection"},
		{"not HTTP/2", func(r *h2request) bool { io.WriteString(r.conn, "HTTP/1.1 400 hush\r\n\r\n"); return false }, false, "not valid HTTP"},
	} {
		for method, text := range map[string]string{"POST": "hello", "DELETE": ""} {
			t.Run(tt.name+", "+method, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int64
				upstreamURL := serveFrames(t, func(r *h2request) bool {
					assert.Check(t, r.body == text, "request %d came with the body %q", r.nth, r.body)
					if requests.Add(1) == 1 {
						return tt.first(r)
					}
					r.ok()
					return true
				})
				g := start(t, upstreamURL)
				res := g.answer(t, fmt.Sprintf("%s / HTTP/1.1\r\nHost: p\r\nIdempotency-Key: i\r\nContent-Length: %d\r\n\r\n%s", method, len(text), text))
				resent := tt.resent || text == "" && tt.name == "RST_STREAM PROTOCOL_ERROR" // net/http's rule (golang/go#47635)
				if !resent {
					once(t, g, res, tt.reason)
					assert.Equal(t, requests.Load(), int64(1), "the request was sent again")
					return
				}
				assert.Equal(t, res.StatusCode, http.StatusOK, body(t, res))
				assert.Equal(t, requests.Load(), int64(2))
				assert.Equal(t, g.finished(t)["attempts"], 1.0)
				assert.Equal(t, g.retried(t), 0.0)
			})
		}
	}
}

// TestRequestBeforeSettings: on a new connection the request does not wait for the upstream's SETTINGS, which would take a round trip.
// Here they come only after it.
func TestRequestBeforeSettings(t *testing.T) {
	t.Parallel()
	upstreamURL := serveH2(t, func(conn net.Conn, in *bufio.Reader) {
		for {
			kind, flags, stream, _, err := readFrame(in)
			if err != nil {
				return
			}
			if kind == frameHeaders {
				writeFrame(conn, frameSettings, 0, 0, nil)
			}
			if (kind == frameHeaders || kind == frameData) && flags&flagEndStream != 0 {
				(&h2request{conn: conn, stream: stream}).ok()
			}
		}
	})
	g := start(t, upstreamURL, retries(0))
	assert.Equal(t, g.post(t, "hello").StatusCode, http.StatusOK)
}

// TestEarlyAnswer covers row 2.7: an answer passes even while the upstream has not read the body.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
		readHead(in)
		io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nread")
		<-t.Context().Done() // reads no more
	})
	g := start(t, upstreamURL, bodies(16<<20, 16<<20))
	res := g.post(t, strings.Repeat("x", 16<<20))
	assert.Equal(t, res.StatusCode, http.StatusUnauthorized)
	assert.Equal(t, body(t, res), "read")
	g.finished(t)
	assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
}

// TestEarlyAnswerEnds covers rows 2.8 and 3.2 for an upstream that answers over HTTP/2 and then neither reads the rest of the body nor
// sends anything: the exchange ends when the client leaves, and after the upstream's silence.
func TestEarlyAnswerEnds(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for outcome, silence := range map[string]time.Duration{"client_gone": time.Hour, "idle_timeout": time.Second} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			upstream := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			g := start(t, upstream.URL, bodies(size, size), timeout(silence))
			t.Cleanup(upstream.CloseClientConnections) // ends the exchange if the proxy did not
			c := g.dial(t)
			c.post(size, strings.Repeat("x", size))
			assert.Equal(t, c.response("POST").StatusCode, http.StatusOK)
			if outcome == "client_gone" {
				c.leave("close")
			}
			g.ended(t, http.StatusOK, outcome, 1)
		})
	}
}
