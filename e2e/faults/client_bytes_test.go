package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// hostile is what a client sends on one connection, and what must come of it.
type hostile struct {
	name     string
	bytes    string
	statuses []int // of the final responses, in order
	then     then
	upstream []string // what reaches it: method, path, body
}

// then is what becomes of the client's connection.
type then string

const (
	closed then = "closed"
	open   then = "open"   // it serves another request
	ending then = "ending" // so the answer says; what still comes is thrown away for a while
	waits  then = "waits"  // the proxy waits for the rest of the request, until the client leaves
)

// reject is a row for what gets one answer and does not go upstream.
func reject(status int, name, bytes string) hostile {
	return hostile{name, bytes, []int{status}, closed, nil}
}

// serve is a row for what is as it should be: every request is served, and the connection goes on.
func serve(name, bytes string, requests ...string) hostile {
	return hostile{name, bytes, slices.Repeat([]int{200}, len(requests)), open, requests}
}

// hostiles are requests that two readers might read differently, or that nobody should read at all.
func hostiles() []hostile {
	const (
		post    = "POST /a HTTP/1.1\r\nHost: p\r\n"
		get     = "GET /a HTTP/1.1\r\nHost: p\r\n"
		chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
		hidden  = "POST /smuggled HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n"
		next    = "POST /next HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n"
	)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(hidden))
	return []hostile{
		// Two framings.
		serve("length and chunks", post+length+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+next, "POST /a ", "POST /next "),
		reject(400, "two lengths", post+"Content-Length: 0\r\n"+length+"\r\n"+hidden),
		reject(400, "length with a sign", post+"Content-Length: +3\r\n\r\nabc"),
		{"length of 2⁶³ - 1", post + "Content-Length: 9223372036854775807\r\n\r\nabc", []int{413}, ending, nil},
		reject(400, "length and a space before the colon", post+"Content-Length : "+fmt.Sprint(len(hidden))+"\r\n\r\n"+hidden),

		// Transfer encodings.
		reject(501, "xchunked", post+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
		{"chunked on a folded line", "POST /waits HTTP/1.1\r\nHost: p\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\nabc", nil, waits, nil},

		// Chunks.
		reject(400, "an extension that hides a request", chunked+"3;"+strings.ReplaceAll(hidden, "\r\n", "\n")+"\r\nabc\r\n0\r\n\r\n"),
		reject(400, "chunk lines ended by LF", chunked+"3\nabc\n0\n\n"),
		{"chunk size of 2⁶³", "POST /waits-2 HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000003\r\nabc\r\n0\r\n\r\n", nil, waits, nil},
		serve("trailers", chunked+"3\r\nabc\r\n0\r\nX-Smuggled: 1\r\nContent-Length: 9\r\nHost: else\r\nAuthorization: else\r\n\r\n", "POST /a abc"),

		// Lines and headers.
		serve("lines ended by LF", "POST /a HTTP/1.1\nHost: p\nContent-Length: 3\n\nabc", "POST /a abc"),
		reject(400, "NUL in a value", post+"X-A: 1\x00\r\n\r\n"),
		reject(400, "space before the colon", post+"X-A : 1\r\n\r\n"),
		serve("folded header", post+"X-A: 1\r\n X-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", "POST /a "),
		reject(400, "folded length", post+"Content-Length: 3\r\n 0\r\n\r\nabc"),
		reject(400, "empty lines before the request", "\r\n\r\n"+next),
		reject(400, "two Hosts", "POST /a HTTP/1.1\r\nHost: p\r\nHost: q\r\nContent-Length: 0\r\n\r\n"),
		reject(431, "a head of 100 KiB", post+"X-A: "+strings.Repeat("a", 100<<10)+"\r\n\r\n"),

		// Request lines.
		reject(505, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		serve("absolute target", "GET http://else.example/a HTTP/1.1\r\nHost: q\r\n\r\n", "GET /a "),
		{"CONNECT", "CONNECT else.example:443 HTTP/1.1\r\nHost: else.example:443\r\n\r\n", []int{405}, open, nil},
		serve("a path that looks like a host", "GET //else.example/a HTTP/1.1\r\nHost: p\r\n\r\n", "GET //else.example/a "),
		{"half an escape", "GET /100% HTTP/1.1\r\nHost: p\r\n\r\n", []int{400}, closed, nil},
		reject(400, "TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("x", 500)+"\r\n\r\n"),

		// What asks for something else.
		serve("Upgrade: h2c", get+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "GET /a "),
		serve("Expect: 100-continue, body at once", post+"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"+next, "POST /a abc", "POST /next "),
		reject(417, "Expect: else", post+"Expect: else\r\nContent-Length: 3\r\n\r\nabc"),
		{"Connection: close, and another request", post + "Connection: close\r\nContent-Length: 0\r\n\r\n" + hidden, []int{200}, closed, []string{"POST /a "}},
		serve("five at once", strings.Repeat(next, 5), "POST /next ", "POST /next ", "POST /next ", "POST /next ", "POST /next "),
		{"one, and one that is malformed", next + "POST /b HTTP/1.1\r\nHost: p\r\nContent-Length: x\r\n\r\n" + hidden, []int{200, 400}, closed, []string{"POST /next "}},
	}
}

// TestClientBytes covers what clients should not send. Whatever is answered, the upstream must see exactly the requests that the row
// names, each with the body that it names, and never one that was hidden in another. All rows have one process, in turn: a request that
// no client is answered for, and that comes too late for its row, is still in the counters at the end.
func TestClientBytes(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := p.open(t)
			for _, row := range hostiles() {
				t.Run(row.name, func(t *testing.T) {
					defer func(all *testing.T) { w.t = all }(w.t)
					w.t = t // what fails, fails the row
					row.send(w)
				})
			}
			w.undisturbed()
		})
	}
}

func (row hostile) send(w watched) {
	t := w.t
	before := w.asked()
	c := w.dial()
	c.send(row.bytes)
	var ids []string
	for _, want := range row.statuses {
		ids = append(ids, c.status(want))
	}
	switch row.then {
	case closed:
		assert.Equal(t, c.closed(), "")
	case open:
		c.send("POST /canary HTTP/1.1\r\nHost: p\r\nContent-Length: 6\r\n\r\ncanary")
		ids = append(ids, c.status(200))
		row.upstream = append(row.upstream, "POST /canary canary")
	case ending:
		assert.Assert(t, c.res.Close, "the answer does not say that the connection ends")
		c.Close()
	case waits:
		c.leave("half-close")
		assert.Equal(t, c.closed(), "")
		path, _, _ := strings.Cut(strings.TrimPrefix(row.bytes, "POST "), " ")
		w.book(w.logged(path))
	}
	for _, id := range ids {
		if id != "" {
			w.book(w.p.Finished(t, id))
		}
	}
	asked := w.asked()
	for _, r := range before {
		if i := slices.Index(asked, r); i >= 0 {
			asked = slices.Delete(asked, i, i+1)
		}
	}
	slices.Sort(row.upstream)
	assert.Equal(t, strings.Join(asked, "\n"), strings.Join(row.upstream, "\n"))
}

// status reads a response, demands its status, and returns its id, which is empty if it is net/http's own and not the proxy's.
func (c *conn) status(want int) (id string) {
	c.t.Helper()
	c.res = nil
	assert.NilError(c.t, c.head())
	assert.Equal(c.t, c.res.StatusCode, want)
	_, err := io.Copy(io.Discard, c.res.Body)
	assert.NilError(c.t, err)
	return c.res.Header.Get("X-Proxy-Request-Id")
}
