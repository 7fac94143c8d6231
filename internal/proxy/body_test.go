package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// received is a request as an upstream's handler sees it.
type received struct {
	body     string
	length   int64
	encoding []string
	header   http.Header
	trailer  http.Header
}

// receiver returns a handler that answers 200 and passes on what it received.
func receiver() (http.HandlerFunc, <-chan received) {
	ch := make(chan received, 100)
	return func(_ http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		ch <- received{string(data), r.ContentLength, r.TransferEncoding, r.Header, r.Trailer}
	}, ch
}

// chunked returns text in chunked encoding, in chunks of n bytes, without the final chunk.
func chunked(text string, n int) string {
	var b strings.Builder
	for len(text) > 0 {
		n = min(n, len(text))
		fmt.Fprintf(&b, "%x;ext=\"x\"\r\n%s\r\n", n, text[:n])
		text = text[n:]
	}
	return b.String()
}

const chunkedHead = "POST /v1/messages HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n"

// TestBodyArrives covers row 1.10: byte for byte, up to and including the limit, with its length.
func TestBodyArrives(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	random := make([]byte, limit)
	rand.NewChaCha8([32]byte{1}).Read(random)
	full := string(random)
	handler, arrivals := receiver()
	bothUpstreams(t, handler, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, bodies(limit, limit))
		for _, tt := range []struct{ name, send, want string }{
			{"none", "GET / HTTP/1.1\r\nHost: p\r\n\r\n", ""},
			{"declared empty", "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n", ""},
			{"chunked empty", chunkedHead + "\r\n0\r\n\r\n", ""},
			{"declared one byte", "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\n\x00", "\x00"},
			{"declared at the limit", fmt.Sprintf("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", limit, full), full},
			{"chunked at the limit", chunkedHead + "\r\n" + chunked(full, 7777) + "0\r\n\r\n", full},
			{"chunked in single bytes", chunkedHead + "\r\n" + chunked(full[:500], 1) + "0\r\n\r\n", full[:500]},
			{"GET with a body", "GET / HTTP/1.1\r\nHost: p\r\nContent-Length: 3\r\n\r\nabc", "abc"},
			{"request trailers are dropped", chunkedHead + "Trailer: X-T\r\n\r\n" + chunked("abc", 2) + "0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", "abc"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := g.dial(t)
				c.send(tt.send)
				res := c.response("POST")
				assert.Equal(t, res.StatusCode, http.StatusOK, body(t, res))
				got := within(t, arrivals, "the request at the upstream")
				assert.Assert(t, got.body == tt.want, "the body changed: %d bytes arrived, %d were sent", len(got.body), len(tt.want))
				assert.Equal(t, got.length, int64(len(tt.want)))
				assert.Equal(t, len(got.encoding), 0, "Transfer-Encoding was forwarded")
				assert.Equal(t, len(got.trailer), 0, "trailers were forwarded")
				assert.Equal(t, len(got.header["Trailer"]), 0)
				assert.Equal(t, g.finished(t)["bytes_in"], float64(len(tt.want)))
				assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
			})
		}
	})
}

// TestBodyIsFreedWhileAnswering covers section 1: an answer that takes minutes does not keep its request's body in memory. It looks at the
// whole heap, so no other test may run beside it.
func TestBodyIsFreedWhileAnswering(t *testing.T) {
	const size = 32 << 20
	text := strings.Repeat("x", size)
	answers := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	bothUpstreams(t, answers, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, bodies(size, size))
		before := heap()
		c := g.dial(t)
		c.post(size, text)
		assert.Equal(t, c.response("POST").StatusCode, http.StatusOK)
		assert.Assert(t, heap() < before+size/2, "the body is still in memory")
		runtime.KeepAlive(text)
	})
}

// heap collects garbage and returns how many bytes of the heap are still in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSmallestLimits covers rows 1.10 and 1.11 at the smallest values that max_body_bytes and max_buffered_bytes may have.
func TestSmallestLimits(t *testing.T) {
	t.Parallel()
	handler, arrivals := receiver()
	g := start(t, serveUpstream(t, handler).URL, bodies(1, 1))
	for _, framing := range []string{"Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"} {
		res := g.answer(t, "POST / HTTP/1.1\r\nHost: p\r\n"+framing)
		assert.Equal(t, res.StatusCode, http.StatusOK)
		assert.Equal(t, within(t, arrivals, "the request at the upstream").body, "x")
	}
	assertOurError(t, g.answer(t, chunkedHead+"\r\n2\r\nxx\r\n0\r\n\r\n"), http.StatusRequestEntityTooLarge)
	reaches(t, &g.metrics.HeldBytes, "held bytes", 0)
}

// TestBodyRefused covers row 1.11: a body that is too large is refused with 413 before anything reaches the upstream, even if the client
// sends all of it before it looks for an answer. It covers row 1.10's other side as well: broken chunked encoding gets 400, quoting nothing.
func TestBodyRefused(t *testing.T) {
	t.Parallel()
	const limit = 1000
	const tooLarge, malformed = http.StatusRequestEntityTooLarge, http.StatusBadRequest
	// More than the sockets' buffers take, so that a client that is not listened to gets stuck or reset.
	flood := strings.Repeat("x", 8<<20)
	for _, tt := range []struct {
		name, send string
		status     int
	}{
		{"declared, by one byte", fmt.Sprintf("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", limit+1, flood[:limit+1]), tooLarge},
		{"declared, body not sent", fmt.Sprintf("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n", limit+1), tooLarge},
		{"declared, a flood", fmt.Sprintf("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", len(flood), flood), tooLarge},
		{"chunked, by one byte", chunkedHead + "\r\n" + chunked(flood[:limit+1], 100) + "0\r\n\r\n", tooLarge},
		{"chunked, not ended", chunkedHead + "\r\n" + chunked(flood[:limit+1], 100), tooLarge},
		{"chunked, a flood", chunkedHead + "\r\n" + chunked(flood, 64<<10) + "0\r\n\r\n", tooLarge},
		{"chunked, a flood after Expect", chunkedHead + "Expect: 100-continue\r\n\r\n" + chunked(flood, 64<<10) + "0\r\n\r\n", tooLarge},
		{"declared, a flood that did not wait for 100", fmt.Sprintf("POST / HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", len(flood), flood), tooLarge},
		{"no size", chunkedHead + "\r\nhush\r\n", malformed},
		{"no line end after a chunk", chunkedHead + "\r\n5\r\n12345hush", malformed},
		{"a negative size", chunkedHead + "\r\n-1\r\n", malformed},
		{"a size that overflows", chunkedHead + "\r\nfffffffffffffffff\r\n", malformed},
		{"no size after a chunk", chunkedHead + "\r\n5\r\n12345\r\nhush\r\n", malformed},
		{"no trailer", chunkedHead + "\r\n0\r\nhush hush\r\n\r\n", malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var reached atomic.Int64
			g := start(t, serveUpstream(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }).URL, bodies(limit, limit))
			c := g.dial(t)
			c.send(tt.send)
			message := assertOurError(t, c.finalResponse("POST"), tt.status)
			assert.Assert(t, tt.status == malformed || strings.Contains(message, "1000 bytes") && strings.Contains(message, "max_body_bytes"), message)
			assert.Assert(t, !strings.Contains(message, "hush"), message)
			c.Close()
			g.ended(t, float64(tt.status), "complete", 0)
			assert.Equal(t, reached.Load(), int64(0), "a part of the request reached the upstream")
			assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
			assert.Equal(t, g.metric(t, `proxy_upstream_errors_total{error_type="invalid_request"}`), 1.0)
		})
	}
}

// TestExpectContinue covers rows 1.13 and 1.10: 100 comes from the proxy before the body, and Expect goes no further. FuzzWire covers a length
// that is too large.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	handler, arrivals := receiver()
	g := start(t, serveUpstream(t, handler).URL, bodies(10, 10))
	c := g.dial(t)
	c.send("POST / HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
	assert.Equal(t, c.response("POST").StatusCode, http.StatusContinue)
	c.send("0123456789")
	assert.Equal(t, c.response("POST").StatusCode, http.StatusOK)
	got := within(t, arrivals, "the request at the upstream")
	assert.Equal(t, got.body, "0123456789")
	assert.Equal(t, len(got.header["Expect"]), 0, "Expect was forwarded")
}

// TestBodyWithoutEnd covers rows 1.12 and 2.8: a client that stops sending is refused after the timeout. If it leaves, there is no answer, and
// 499 is counted. Either way its memory and its slot are free again.
func TestBodyWithoutEnd(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	for _, tt := range []struct{ name, send string }{
		{"declared, no byte", "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\n\r\n"},
		{"declared, some bytes", "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\n\r\n12345"},
		{"chunked, between chunks", chunkedHead + "\r\n" + chunked("12345", 5)},
		{"chunked, within a chunk", chunkedHead + "\r\n5\r\n123"},
		{"chunked, within the size", chunkedHead + "\r\n5"},
		{"chunked, before the end", chunkedHead + "\r\n5\r\n12345\r\n0\r\n"},
		{"chunked, within the trailer", chunkedHead + "\r\n5\r\n12345\r\n0\r\nX-T: 1"},
		{"Expect", "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"},
	} {
		t.Run(tt.name+", stays", func(t *testing.T) {
			t.Parallel()
			g := start(t, "http://127.0.0.1:1", timeout(limit), bodies(10, 10))
			began := time.Now()
			c := g.dial(t)
			c.send(tt.send)
			message := assertOurError(t, c.finalResponse("POST"), http.StatusRequestTimeout)
			assert.Assert(t, time.Since(began) >= limit, "refused before the timeout")
			assert.Assert(t, strings.Contains(message, "no byte for 0.1s"), message)
			_, err := c.in.ReadByte()
			assert.Equal(t, err, io.EOF, "the connection must close: its next bytes are no request")
			g.ended(t, 408, "complete", 0)
			assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
			assert.Equal(t, g.metrics.InFlight.Load(), int64(0))
		})
		if tt.name == "declared, no byte" || tt.name == "Expect" { // no byte of the body has come, so nothing is reserved
			continue
		}
		for _, leave := range waysToLeave {
			t.Run(tt.name+", "+leave, func(t *testing.T) {
				t.Parallel()
				g := start(t, "http://127.0.0.1:1", bodies(10, 10))
				c := g.dial(t)
				c.send(tt.send)
				if tt.name != "chunked, within the size" { // likewise
					reaches(t, &g.metrics.HeldBytes, "held bytes", 10)
				}
				c.leave(leave)
				if leave == "half-close" {
					c.closedWithoutAnswer()
				}
				g.ended(t, 499, "client_gone", 0)
				assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
			})
		}
	}
}

// budget is a proxy whose upstream holds back its response headers until told, one word in advance per request.
type budget struct {
	*gateway
	arrivals <-chan string // the bodies, as they arrive at the upstream
	headers  chan struct{} // one response's headers may go
	end      chan struct{} // closed: the responses may end
}

func newBudget(t *testing.T, changes ...func(*proxy.Options)) *budget {
	arrivals, headers, end := make(chan string, 100), make(chan struct{}), make(chan struct{})
	upstream := serveUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		arrivals <- string(data)
		select {
		case <-headers:
		case <-r.Context().Done():
			return
		}
		http.NewResponseController(w).Flush()
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	return &budget{start(t, upstream.URL, changes...), arrivals, headers, end}
}

// TestBudget covers section 1's paragraph on memory: a body that does not fit waits, holding nothing, in order, and its room comes back
// when the response headers arrive, not when the response ends. A small body never waits for large ones.
func TestBudget(t *testing.T) {
	t.Parallel()
	g := newBudget(t, bodies(90, 120)) // 30 for small bodies, 90 for large ones
	post := func(text string) *rawClient {
		c := g.dial(t)
		c.post(len(text), text)
		return c
	}
	a := post(strings.Repeat("a", 80))
	assert.Equal(t, within(t, g.arrivals, "a")[:1], "a")
	post(strings.Repeat("b", 59))
	reaches(t, &g.metrics.Queued, "queued", 1)
	assert.Equal(t, g.metrics.HeldBytes.Load(), int64(80), "a request that waits must hold none")
	post(strings.Repeat("c", 31)) // would fit, but b came first
	reaches(t, &g.metrics.Queued, "queued", 2)
	post(strings.Repeat("d", 30)) // is small
	assert.Equal(t, within(t, g.arrivals, "d")[:1], "d")
	post("") // has no body, so it needs no room
	assert.Equal(t, within(t, g.arrivals, "e"), "")
	post("f") // is small, but there are too many
	reaches(t, &g.metrics.Queued, "queued", 3)
	assert.Equal(t, g.metric(t, "proxy_held_body_bytes"), 110.0)
	assert.Equal(t, g.metric(t, "proxy_requests_queued"), 3.0)

	for range 3 { // to a, d and e
		g.headers <- struct{}{}
	}
	assert.Equal(t, a.response("POST").StatusCode, http.StatusOK)
	arrived := 0
	for range 3 {
		arrived += len(within(t, g.arrivals, "one of b, c and f"))
	}
	assert.Equal(t, arrived, 59+31+1)
	for range 3 {
		g.headers <- struct{}{}
	}
	reaches(t, &g.metrics.HeldBytes, "held bytes", 0) // all of them still stream, but hold nothing
	close(g.end)
}

// TestBudgetChunked: a body of unknown length begins as a small one, takes the room of the largest when it turns out larger, and gives
// back what it did not need. While it waits for that, declared small bodies pass.
func TestBudgetChunked(t *testing.T) {
	t.Parallel()
	g := newBudget(t, bodies(90, 120))
	large := g.dial(t)
	large.post(80, strings.Repeat("a", 80))
	within(t, g.arrivals, "the large body")
	a := g.dial(t)
	a.send(chunkedHead + "\r\n" + chunked(strings.Repeat("b", 20), 7))
	reaches(t, &g.metrics.HeldBytes, "held bytes", 80+30)
	a.send(chunked(strings.Repeat("b", 20), 20))
	reaches(t, &g.metrics.Queued, "queued", 1)
	g.headers <- struct{}{}
	reaches(t, &g.metrics.HeldBytes, "held bytes", 90)
	a.send("0\r\n\r\n")
	assert.Equal(t, within(t, g.arrivals, "the chunked body"), strings.Repeat("b", 40))
	reaches(t, &g.metrics.HeldBytes, "held bytes", 40)
}

// TestStalledUploadsDelayNoSmallBody covers section 1: eight large uploads that stand still, declared or chunked, and large requests that
// the API thinks about, delay no body of 1 MiB or less.
func TestStalledUploadsDelayNoSmallBody(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"declared": "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 33554432\r\n\r\n" + strings.Repeat("x", 2<<20),
		"chunked":  chunkedHead + "\r\n" + chunked(strings.Repeat("x", 2<<20), 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newBudget(t, bodies(32<<20, 64<<20))
			for range 8 {
				c := g.dial(t)
				go io.WriteString(c.TCPConn, head) // what does not fit into the sockets' buffers is read when its turn comes
			}
			reaches(t, &g.metrics.Queued, "queued", 7)
			for _, text := range []string{"a turn", strings.Repeat("t", 1<<20)} {
				g.dial(t).post(len(text), text)
				assert.Equal(t, within(t, g.arrivals, "the small body"), text)
			}
		})
	}
}

// TestBudgetClientLeaves covers row 2.8: a client that leaves while it waits for room is noticed when its turn comes, and it has not been
// silent meanwhile.
func TestBudgetClientLeaves(t *testing.T) {
	t.Parallel()
	for _, leave := range waysToLeave {
		t.Run(leave, func(t *testing.T) {
			t.Parallel()
			g := newBudget(t, bodies(100, 100))
			g.dial(t).post(100, strings.Repeat("a", 100))
			within(t, g.arrivals, "a")
			b, c := g.dial(t), g.dial(t)
			b.post(100, strings.Repeat("b", 50))
			reaches(t, &g.metrics.Queued, "queued", 1)
			c.post(100, strings.Repeat("c", 100))
			reaches(t, &g.metrics.Queued, "queued", 2)
			b.leave(leave)
			g.headers <- struct{}{}
			assert.Equal(t, within(t, g.arrivals, "c")[:1], "c")
			g.ended(t, 499, "client_gone", 0)
			assert.Equal(t, g.metrics.HeldBytes.Load(), int64(100))
		})
	}
}

// TestBudgetWaiterGoesOn: a request that waited for memory is served like any other.
func TestBudgetWaiterGoesOn(t *testing.T) {
	t.Parallel()
	g := newBudget(t, bodies(100, 100))
	a := g.dial(t)
	a.post(100, strings.Repeat("a", 100))
	within(t, g.arrivals, "a")
	b := g.dial(t)
	b.post(100, "first half")
	reaches(t, &g.metrics.Queued, "queued", 1)
	b.send(strings.Repeat("b", 40))
	g.headers <- struct{}{}
	reaches(t, &g.metrics.Queued, "queued", 0)
	b.send(strings.Repeat("B", 50))
	assert.Equal(t, within(t, g.arrivals, "b"), "first half"+strings.Repeat("b", 40)+strings.Repeat("B", 50))
	g.headers <- struct{}{}
	assert.Equal(t, b.response("POST").StatusCode, http.StatusOK)
	b.Close() // and its departure is still noticed
	assert.Equal(t, g.finished(t)["outcome"], "client_gone")
}

// TestBudgetForTheLastByte: the byte that waits for memory may be the body's last. Then net/http watches the connection, and must not take
// the body's read deadline for the client leaving.
func TestBudgetForTheLastByte(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	g := newBudget(t, bodies(100, 100), timeout(limit), retries(5))
	g.dial(t).post(100, strings.Repeat("a", 100))
	g.dial(t).post(25, strings.Repeat("b", 25))
	for range 2 {
		within(t, g.arrivals, "a and b")
	}
	c := g.dial(t)
	c.post(1, "c")
	reaches(t, &g.metrics.Queued, "queued", 1)
	for range 4 { // two more attempts each: the timeout has passed since c's byte
		within(t, g.arrivals, "a's and b's next attempts")
	}
	g.headers <- struct{}{}
	g.headers <- struct{}{}
	for arrived := ""; arrived != "c"; {
		arrived = within(t, g.arrivals, "c")
	}
	c.Close()
	for line := g.finished(t); line["bytes_in"] != 1.0; {
		line = g.finished(t)
		assert.Equal(t, line["outcome"], "client_gone")
	}
}

// TestBudgetIsNeverExceeded sends more than fits, in all forms and with clients that leave.
func TestBudgetIsNeverExceeded(t *testing.T) {
	t.Parallel()
	const one, all, clients = 20_000, 50_000, 60
	var g *gateway
	held := make(chan int64, clients) // while a body is at the upstream
	upstream := serveUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		held <- g.metrics.HeldBytes.Load()
		w.Write(data)
	})
	g = start(t, upstream.URL, bodies(one, all))
	var work sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(7, uint64(i)))
		text := bytes.Repeat([]byte{byte(i)}, 1+random.IntN(one))
		work.Go(func() {
			if i%5 == 0 {
				conn, err := net.Dial("tcp", g.addr)
				if err == nil {
					fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", one, text[:len(text)/2])
					conn.Close()
				}
				return
			}
			var source io.Reader = bytes.NewReader(text)
			if i%2 == 0 {
				source = io.MultiReader(source) // of unknown length, so chunked
			}
			res, err := g.client.Post(g.url, "", source)
			if !assert.Check(t, err) {
				return
			}
			defer res.Body.Close()
			got, _ := io.ReadAll(res.Body)
			assert.Check(t, bytes.Equal(got, text), "a body changed")
		})
	}
	work.Wait()
	for range clients {
		g.finished(t)
	}
	close(held)
	for n := range held {
		assert.Assert(t, n > 0 && n <= all, "proxy_held_body_bytes is %d, max_buffered_bytes %d", n, all)
	}
	assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
	assert.Equal(t, g.metrics.Queued.Load(), int64(0))
}
