package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

const sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// chunk reads one chunk of a chunked response as it is on the wire; "" is the final one.
func (c *rawClient) chunk() (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	var size int
	if _, err := fmt.Sscanf(line, "%x\r\n", &size); err != nil {
		return "", fmt.Errorf("not a chunk: %q", line)
	}
	data := make([]byte, size+2)
	_, err = io.ReadFull(c.in, data)
	return string(data[:size]), err
}

// event reads chunks until they make up want.
func (c *rawClient) event(want string) {
	c.t.Helper()
	var got string
	for len(got) < len(want) {
		text, err := c.chunk()
		assert.NilError(c.t, err, "got %q, want %q", got, want)
		assert.Assert(c.t, text != "", "the stream ended")
		got += text
	}
	assert.Equal(c.t, got, want)
}

// truncated fails unless the stream breaks off here: the connection closes without a final chunk.
func (c *rawClient) truncated() {
	c.t.Helper()
	text, err := c.chunk()
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		c.t.Fatal("the stream continues; it should have been aborted")
	}
	assert.Assert(c.t, err != nil, "the stream did not break off but ended cleanly, or went on with %q", text)
}

// TestStreamEventByEvent covers rows 3.1 and 3.2: headers and each event, whatever their type and also of a declared length, reach the client before the upstream sends the
// next one, and the whole may last longer than the timeout.
func TestStreamEventByEvent(t *testing.T) {
	t.Parallel()
	handler, arrivals := blockingHandler()
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		if length := r.URL.Query().Get("length"); length != "" {
			w.Header().Set("Content-Length", length)
		}
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		http.NewResponseController(w).Flush() // headers alone
		handler(w, r)
	}, func(t *testing.T, upstreamURL string) {
		for _, query := range []string{"type=text/event-stream", "type=application/json", "", "length=348"} {
			const limit = 1500 * time.Millisecond
			g := start(t, upstreamURL, timeout(limit))
			began := time.Now()
			c := g.dial(t)
			c.send("GET /v1?" + query + " HTTP/1.1\r\nHost: p\r\n\r\n")
			h := within(t, arrivals, "the request")
			res := c.response("GET")
			assert.Equal(t, res.StatusCode, http.StatusOK)
			pause := time.Microsecond
			if query == "type=text/event-stream" {
				pause = limit / 10
			}
			tick := time.NewTicker(pause)
			for i := range 12 {
				text := fmt.Sprintf("event: ping\ndata: {\"n\": %2d}\n\n", i) // 29 bytes
				h.send(t, text)
				got := make([]byte, len(text))
				_, err := io.ReadFull(res.Body, got)
				assert.NilError(t, err)
				assert.Equal(t, string(got), text)
				<-tick.C
			}
			tick.Stop()
			assert.Assert(t, pause < limit/10 || time.Since(began) > limit, "the stream was shorter than the timeout, so row 3.2 was not tested")
			close(h.step)
			assert.Equal(t, body(t, res), "", "and a final chunk, if the length was not declared")
			g.ended(t, 200, "complete", 1)
		}
	})
}

// TestStreamSilence covers row 3.3: a started response whose upstream falls silent is aborted, never ended cleanly.
func TestStreamSilence(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	handler, arrivals := blockingHandler()
	bothUpstreams(t, handler, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, timeout(limit))
		c := g.dial(t)
		c.post(1, "a")
		h := within(t, arrivals, "the request")
		sent := time.Now()
		h.send(t, "some")
		assert.Equal(t, c.response("POST").StatusCode, http.StatusOK)
		c.event("some")
		c.truncated()
		assert.Assert(t, time.Since(sent) >= limit, "aborted before the timeout")
		within(t, h.gone, "the upstream request's cancellation")
		line := g.ended(t, 200, "idle_timeout", 1) // a response that has begun must never be asked for again
		assert.Equal(t, line["level"], "WARN")
		headers, duration := line["headers_ms"].(float64), line["duration_ms"].(float64)
		assert.Assert(t, duration >= headers+float64(limit.Milliseconds())-1, "duration_ms %v, headers_ms %v", duration, headers)
		assert.Equal(t, g.metric(t, `proxy_streams_total{outcome="idle_timeout"}`), 1.0)
	})
}

// TestStreamSlowReader covers rows 3.3 and 3.7: a slow client is mistaken neither for a silent upstream nor for one that left.
func TestStreamSlowReader(t *testing.T) {
	t.Parallel()
	const limit, size = 2 * time.Second, 48 << 20 // more than all the buffers in between
	bothUpstreams(t, pour(size), func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, timeout(limit))
		res := g.answer(t, "GET / HTTP/1.0\r\n\r\n") // so that the body is not chunked
		for range 4 {                                // it takes longer than the timeout, but reads in between
			pause := time.NewTimer(limit / 3)
			<-pause.C
			_, err := io.CopyN(io.Discard, res.Body, 8<<20)
			assert.NilError(t, err)
		}
		assert.Equal(t, len(body(t, res)), size-4*8<<20)
		assert.Equal(t, g.finished(t)["outcome"], "complete")
	})
}

// TestClientTakesNothing covers row 3.7: a client that reads nothing for the timeout is disconnected, and its slot is freed.
func TestClientTakesNothing(t *testing.T) {
	t.Parallel()
	bothUpstreams(t, pour(48<<20), func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, timeout(300*time.Millisecond))
		c := g.dial(t)
		c.send("GET / HTTP/1.1\r\nHost: p\r\n\r\n")
		g.ended(t, 200, "client_gone", 1)
		assert.Equal(t, g.metrics.InFlight.Load(), int64(0))
		_, err := io.Copy(io.Discard, c.response("GET").Body)
		assert.Assert(t, err != nil, "the answer ended cleanly")
	})
}

// pour returns a handler that answers with so many bytes as fast as they are taken.
func pour(size int) http.HandlerFunc {
	block := strings.Repeat("x", 32<<10)
	return func(w http.ResponseWriter, r *http.Request) {
		for range size / len(block) {
			io.WriteString(w, block)
		}
	}
}

// TestShortLines covers row 3.1: what comes together goes out together, and not line by line.
func TestShortLines(t *testing.T) {
	t.Parallel()
	const lines = 50_000
	text := strings.Repeat(strings.Repeat("x", 80)+"\r\n", lines)
	g := start(t, serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
		readMessage(in)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+text)
	}))
	c := g.dial(t)
	c.post(0, "")
	c.response("POST")
	pieces, size := 0, 0
	for {
		piece, err := c.chunk()
		assert.NilError(t, err)
		if piece == "" {
			break
		}
		pieces++
		size += len(piece)
	}
	assert.Equal(t, size, len(text))
	assert.Assert(t, pieces < lines/8, "%d lines came in %d pieces", lines, pieces)
}

// TestStreamBreaksOff covers row 3.4: the upstream breaks off mid-body, in all the ways there are over HTTP/1.1.
func TestStreamBreaksOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, send string
		reset      bool
	}{
		{"between chunks, FIN", sse + "5\r\nfirst\r\n", false},
		{"between chunks, RST", sse + "5\r\nfirst\r\n", true},
		{"within a chunk", sse + "5\r\nfirst\r\n6\r\nsec", false},
		{"before the last line", sse + "5\r\nfirst\r\n0\r\n", false},
		{"chunk is garbage", sse + "5\r\nfirst\r\nhush hush\r\n", false},
		{"declared length, FIN", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst", false},
		{"declared length, RST", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst", true},
		{"until close, RST", "HTTP/1.1 200 OK\r\n\r\nfirst", true},
	} {
		for _, version := range []string{"1.1", "1.0"} { // HTTP/1.0 clients take the connection's end for the answer's end
			t.Run(tt.name+", HTTP "+version, func(t *testing.T) {
				t.Parallel()
				seen := make(chan struct{})
				upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
					readMessage(in)
					before, after, _ := strings.Cut(tt.send, "first")
					io.WriteString(conn, before+"first")
					select { // what ends the answer must not overtake its bytes
					case <-seen:
					case <-time.After(patience):
					}
					io.WriteString(conn, after)
					if tt.reset {
						conn.(*net.TCPConn).SetLinger(0)
					}
				})
				g := start(t, upstreamURL)
				c := g.dial(t)
				c.send("GET / HTTP/" + version + "\r\nHost: p\r\n\r\n")
				res := c.response("GET")
				first := make([]byte, 5)
				_, err := io.ReadFull(res.Body, first)
				assert.NilError(t, err)
				close(seen)
				_, err = io.ReadAll(res.Body)
				assert.Assert(t, err != nil, "a truncated answer looks complete")
				line := g.ended(t, 200, "upstream_reset", 1)
				assert.Assert(t, line["error"] != nil, "the line does not say why")
				assert.Equal(t, g.metric(t, `proxy_streams_total{outcome="upstream_reset"}`), 1.0)
				assert.Assert(t, !strings.Contains(g.log.String(), "hush"))
			})
		}
	}
}

// TestClientDeparture covers row 2.8: the upstream request ends with the client, before headers and after, and no other attempt follows.
// The slot is free for the next client (section 4): there is only one.
func TestClientDeparture(t *testing.T) {
	t.Parallel()
	handler, arrivals := blockingHandler()
	bothUpstreams(t, handler, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL, slots(1))
		for streaming, status := range map[bool]float64{false: 499, true: 200} { // 200 was sent
			for _, leave := range waysToLeave {
				t.Run(fmt.Sprintf("%s, streaming %v", leave, streaming), func(t *testing.T) {
					c := g.dial(t)
					c.post(1, "a")
					h := within(t, arrivals, "the request")
					if streaming {
						h.send(t, "some")
						c.response("POST")
						c.event("some")
					}
					c.leave(leave)
					if leave == "half-close" && streaming {
						c.truncated()
					} else if leave == "half-close" {
						c.closedWithoutAnswer()
					}
					within(t, h.gone, "the upstream request's cancellation")
					assert.Equal(t, g.ended(t, status, "client_gone", 1)["level"], "INFO")
					assert.Equal(t, g.metrics.InFlight.Load(), int64(0))
					assert.Equal(t, g.metrics.HeldBytes.Load(), int64(0))
				})
			}
		}
		for _, series := range []string{
			`proxy_requests_total{method="POST",status="499"}`, `proxy_request_duration_seconds_count{status="499"}`,
			`proxy_requests_total{method="POST",status="200"}`, `proxy_request_duration_seconds_count{status="200"}`,
			`proxy_streams_total{outcome="client_gone"}`,
		} {
			assert.Equal(t, g.metric(t, series), float64(len(waysToLeave)), series)
		}
	})
}

// TestDeliveredIsComplete covers section 5: a client that has the last byte may close at once, while the upstream has not ended
// the answer yet.
func TestDeliveredIsComplete(t *testing.T) {
	t.Parallel()
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		w.Header().Set("Content-Length", "6")
		io.WriteString(w, "answer")
		http.NewResponseController(w).Flush()
		<-r.Context().Done() // only now the answer ends
	}, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL)
		c := g.dial(t)
		c.post(1, "a")
		assert.Equal(t, body(t, c.response("POST")), "answer")
		c.Close()
		g.ended(t, 200, "complete", 1)
		assert.Equal(t, g.metric(t, `proxy_streams_total{outcome="complete"}`), 1.0)
		assert.Equal(t, g.metric(t, `proxy_event_streams_total{outcome="complete"}`), 0.0)
	})
}

// TestFraming covers row 3.5: what has no body gets none, a length stays, and the connection can be used again.
func TestFraming(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, method, answer, length, body string }{
		{"HEAD with length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "7", ""},
		{"HEAD without length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", "", ""},
		{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", ""},
		{"204", "POST", "HTTP/1.1 204 No Content\r\n\r\n", "", ""},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\n\r\n", "", ""},
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567", "7", "1234567"},
		{"length 0", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0", ""},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n1234567\r\n0\r\n\r\n", "", "1234567"},
		{"chunked empty", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ""},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\n1234567", "", "1234567"},
		{"HEAD with an error of ours", "HEAD", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// An upstream that closes unannounced might do so just as the next request arrives.
			g := start(t, serveAnswer(t, strings.Replace(tt.answer, "\r\n", "\r\nConnection: close\r\n", 1)))
			c := g.dial(t)
			for range 2 {
				c.send(tt.method + " / HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n")
				res := c.response(tt.method)
				ours := tt.answer == "" // whose length does not matter here
				assert.Assert(t, ours || res.Header.Get("Content-Length") == tt.length, "Content-Length: %q", res.Header["Content-Length"])
				assert.Equal(t, res.Header.Get("Etag") != "", tt.name == "304")
				assert.Equal(t, isID(res.Header.Get("Request-Id")), ours)
				assert.Equal(t, body(t, res), tt.body)
				line := g.finished(t)
				assert.Equal(t, line["outcome"], "complete")
				assert.Equal(t, line["bytes_out"], float64(len(tt.body)))
			}
		})
	}
}

// TestTrailers covers row 3.5: trailers arrive as trailers, announced or not, with a body or without, and beside a length, which only
// HTTP/2 can send.
func TestTrailers(t *testing.T) {
	t.Parallel()
	for _, announced := range []bool{true, false} {
		for _, text := range []string{"body", ""} {
			t.Run(fmt.Sprintf("announced %v, body %q", announced, text), func(t *testing.T) {
				t.Parallel()
				bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
					prefix := http.TrailerPrefix
					if announced {
						w.Header().Set("Trailer", "X-Sum")
						prefix = ""
					}
					if announced && text != "" && r.ProtoMajor == 2 {
						w.Header().Set("Content-Length", fmt.Sprint(len(text)))
					}
					io.WriteString(w, text)
					http.NewResponseController(w).Flush()
					w.Header().Set(prefix+"X-Sum", "42")
				}, func(t *testing.T, upstreamURL string) {
					res := start(t, upstreamURL).get(t, "/")
					assert.Equal(t, res.Header.Get("X-Sum"), "", "a trailer came as a header")
					assert.Equal(t, body(t, res), text)
					assert.DeepEqual(t, res.Trailer, http.Header{"X-Sum": {"42"}})
				})
			})
		}
	}
}

// TestTrailersThatConcernOneConnection covers row 3.5: trailers pass the same list as headers.
func TestTrailersThatConcernOneConnection(t *testing.T) {
	t.Parallel()
	res := start(t, serveAnswer(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"+
		"X-Sum: 42\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Proxy-Request-Id: req_theirs\r\n\r\n")).get(t, "/")
	assert.Equal(t, body(t, res), "body")
	assert.DeepEqual(t, res.Trailer, http.Header{"X-Sum": {"42"}})
}

// TestAbortOverHTTP10WhileWriting covers row 2.8 for a client that closes its side while it takes no more: what it finds when
// it reads on does not look like the whole answer.
func TestAbortOverHTTP10WhileWriting(t *testing.T) {
	t.Parallel()
	block := strings.Repeat("x", 1<<20)
	g := start(t, serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, block)
		}
	}).URL)
	c := g.dial(t)
	c.send("GET / HTTP/1.0\r\n\r\n")
	res := c.response("GET")
	var before float64
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		n := g.metric(t, "proxy_response_bytes_total")
		if n > 1<<16 && n == before {
			return poll.Success()
		}
		before = n
		return poll.Continue("%.0f bytes and more are written to a client that does not read", n)
	}, poll.WithTimeout(patience), poll.WithDelay(50*time.Millisecond))
	c.CloseWrite()
	assert.Equal(t, g.finished(t)["outcome"], "client_gone")
	_, err := io.Copy(io.Discard, res.Body)
	assert.ErrorIs(t, err, syscall.ECONNRESET)
}
