package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

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
	cut    then = "cut"    // without an answer to the request for /cut, which net/http takes for one that breaks off
	waits  then = "waits"  // the proxy waits for the rest of the request for /waits, until the client leaves
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
		serve("chunks and length", post+"Transfer-Encoding: chunked\r\n"+length+"\r\n3\r\nabc\r\n0\r\n\r\n"+next, "POST /a abc", "POST /next "),
		reject(400, "chunks and a length that is none", post+"Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n"),
		reject(400, "two lengths", post+"Content-Length: 0\r\n"+length+"\r\n"+hidden),
		reject(400, "two lengths, the larger first", post+length+"Content-Length: 0\r\n\r\n"+hidden),
		serve("two equal lengths", post+"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "POST /a abc"),
		reject(400, "two lengths in one", post+"Content-Length: 3, 3\r\n\r\nabc"),
		reject(400, "two lengths, one in small letters", post+"Content-Length: 0\r\ncontent-length: 3\r\n\r\nabc"),
		reject(400, "negative length", post+"Content-Length: -1\r\n\r\n"),
		reject(400, "length with a sign", post+"Content-Length: +3\r\n\r\nabc"),
		reject(400, "hexadecimal length", post+"Content-Length: 0x3\r\n\r\nabc"),
		reject(400, "length beyond 64 bits", post+"Content-Length: 18446744073709551619\r\n\r\nabc"),
		{"length of 2⁶³ - 1", post + "Content-Length: 9223372036854775807\r\n\r\nabc", []int{400}, ending, nil},
		reject(400, "empty length", post+"Content-Length: \r\n\r\n"+hidden),
		reject(400, "length with a letter", post+"Content-Length: 3x\r\n\r\nabc"),
		reject(400, "length with a vertical tab", post+"Content-Length: \v3\r\n\r\nabc"),
		serve("length with an underscore", post+"Content_Length: 100\r\nContent-Length: 3\r\n\r\nabc"+next, "POST /a abc", "POST /next "),
		reject(400, "length and a space before the colon", post+"Content-Length : "+fmt.Sprint(len(hidden))+"\r\n\r\n"+hidden),
		serve("length with a leading zero", post+"Content-Length: 03\r\n\r\nabc"+next, "POST /a abc", "POST /next "),
		serve("length of a GET", get+length+"\r\n"+hidden, "GET /a "+hidden),
		serve("length named in Connection", post+"Connection: Content-Length\r\n"+length+"\r\n"+hidden, "POST /a "+hidden),

		// Transfer encodings.
		reject(501, "xchunked", post+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
		reject(501, "chunked, identity", post+"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
		reject(501, "identity", post+"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
		reject(501, "gzip, chunked", post+"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		reject(501, "chunked twice", post+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		reject(501, "chunked and identity", post+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
		reject(400, "chunked behind a vertical tab", post+"Transfer-Encoding: \vchunked\r\nContent-Length: 3\r\n\r\nabc"),
		serve("chunked behind a tab", post+"Transfer-Encoding:\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /a abc"),
		serve("Chunked in capitals", post+"TRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /a abc"),
		{"chunked on a folded line", "POST /waits HTTP/1.1\r\nHost: p\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\nabc", nil, waits, nil},
		reject(400, "chunked and a space before the colon", post+"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
		{"chunked in HTTP/1.0", "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc" + hidden, []int{200}, closed, []string{"POST /a abc"}},
		serve("chunked named in Connection", post+"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /a abc"),
		serve("Te", post+"Te: trailers, chunked\r\nContent-Length: 3\r\n\r\nabc", "POST /a abc"),

		// Chunks.
		serve("chunk extensions", chunked+"3;a=b;c\r\nabc\r\n0;d\r\n\r\n", "POST /a abc"),
		reject(400, "a bare LF in a chunk extension", chunked+"3;\nabc\r\n0\r\n\r\n"),
		reject(400, "an extension that hides a request", chunked+"3;"+strings.ReplaceAll(hidden, "\r\n", "\n")+"\r\nabc\r\n0\r\n\r\n"),
		reject(400, "chunk lines ended by LF", chunked+"3\nabc\n0\n\n"),
		serve("leading zeros", chunked+"0000003\r\nabc\r\n00\r\n\r\n", "POST /a abc"),
		reject(400, "chunk size with a sign", chunked+"+3\r\nabc\r\n0\r\n\r\n"),
		reject(400, "chunk size of 0x3", chunked+"0x3\r\nabc\r\n0\r\n\r\n"),
		reject(400, "negative chunk size", chunked+"-3\r\nabc\r\n0\r\n\r\n"),
		reject(400, "chunk size beyond 64 bits", chunked+"10000000000000003\r\nabc\r\n0\r\n\r\n"),
		{"chunk size of 2⁶³", "POST /waits HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000003\r\nabc\r\n0\r\n\r\n", nil, waits, nil},
		reject(400, "spaces around the chunk size", chunked+" 3 \r\nabc\r\n0\r\n\r\n"),
		reject(400, "a chunk longer than its size", chunked+"3\r\nabcd\r\n0\r\n\r\n"),
		reject(400, "a chunk shorter than its size", chunked+"5\r\nabc\r\n0\r\n\r\n"),
		serve("trailers", chunked+"3\r\nabc\r\n0\r\nX-Smuggled: 1\r\nContent-Length: 9\r\nHost: else\r\nAuthorization: else\r\n\r\n", "POST /a abc"),
		serve("trailers that were announced", post+"Trailer: X-Smuggled\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Smuggled: 1\r\n\r\n", "POST /a abc"),
		reject(400, "a trailer that is malformed", chunked+"3\r\nabc\r\n0\r\nX Smuggled\r\n\r\n"),
		{"a trailer of 100 KiB", "POST /cut HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: " + strings.Repeat("a", 100<<10) + "\r\n\r\n", nil, cut, nil},
		reject(400, "more extensions than data", chunked+strings.Repeat("1;"+strings.Repeat("e", 1000)+"\r\na\r\n", 1000)+"0\r\n\r\n"),
		serve("chunks of a GET", get+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"+next, "GET /a abc", "POST /next "),
		serve("a request behind the last chunk", chunked+"0\r\n\r\n"+next, "POST /a ", "POST /next "),

		// Lines and headers.
		serve("lines ended by LF", "POST /a HTTP/1.1\nHost: p\nContent-Length: 3\n\nabc", "POST /a abc"),
		reject(400, "CR in a value", post+"X-A: 1\rX-Smuggled: 1\r\n\r\n"),
		reject(400, "CR CR LF", post+"X-A: 1\r\r\nContent-Length: 0\r\n\r\n"),
		reject(400, "NUL in a value", post+"X-A: 1\x00\r\n\r\n"),
		reject(400, "NUL in a name", post+"X-A\x00: 1\r\n\r\n"),
		reject(400, "space in a name", post+"X A: 1\r\n\r\n"),
		reject(400, "space before the colon", post+"X-A : 1\r\n\r\n"),
		reject(400, "no name", post+": 1\r\n\r\n"),
		reject(400, "no colon", post+"X-Smuggled\r\n\r\n"),
		reject(400, "first header begins with a space", "POST /a HTTP/1.1\r\n Host: p\r\nContent-Length: 0\r\n\r\n"),
		serve("folded header", post+"X-A: 1\r\n X-Smuggled: 1\r\nContent-Length: 0\r\n\r\n", "POST /a "),
		reject(400, "folded length", post+"Content-Length: 3\r\n 0\r\n\r\nabc"),
		reject(400, "beyond ASCII in a name", post+"X-\xff: 1\r\nContent-Length: 0\r\n\r\n"),
		serve("beyond ASCII in a value", post+"X-A: \xff\r\nContent-Length: 0\r\n\r\n", "POST /a "),
		reject(400, "empty lines before the request", "\r\n\r\n"+next),
		reject(400, "two Hosts", "POST /a HTTP/1.1\r\nHost: p\r\nHost: q\r\nContent-Length: 0\r\n\r\n"),
		reject(400, "no Host", "POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
		reject(400, "a Host that is none", "POST /a HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n"),
		serve("an empty Host", "POST /a HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n", "POST /a "),
		serve("4000 headers", post+strings.Repeat("x-a: 1\r\n", 4000)+"Content-Length: 3\r\n\r\nabc"+next, "POST /a abc", "POST /next "),
		reject(431, "a head of 100 KiB", post+"X-A: "+strings.Repeat("a", 100<<10)+"\r\n\r\n"),

		// Request lines.
		reject(400, "HTTP/0.9", "GET /a\r\n\r\n"),
		serve("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: p\r\n\r\n", "GET /a "),
		reject(505, "HTTP/3.0", "GET /a HTTP/3.0\r\nHost: p\r\n\r\n"),
		reject(400, "http/1.1", "GET /a http/1.1\r\nHost: p\r\n\r\n"),
		reject(505, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		reject(400, "two spaces", "GET  /a HTTP/1.1\r\nHost: p\r\n\r\n"),
		reject(400, "a tab", "GET\t/a\tHTTP/1.1\r\nHost: p\r\n\r\n"),
		reject(400, "a space in the target", "GET /a HTTP/1.1 HTTP/1.1\r\nHost: p\r\n\r\n"),
		reject(400, "NUL in the target", "GET /a\x00b HTTP/1.1\r\nHost: p\r\n\r\n"),
		reject(400, "CR in the target", "GET /a\rb HTTP/1.1\r\nHost: p\r\n\r\n"),
		serve("beyond ASCII in the target", "GET /\xff HTTP/1.1\r\nHost: p\r\n\r\n", "GET /\xff "),
		serve("line break, encoded", "GET /a%0d%0aX-Smuggled:%201 HTTP/1.1\r\nHost: p\r\n\r\n", "GET /a%0d%0aX-Smuggled:%201 "),
		reject(400, "a method with a NUL", "G\x00T /a HTTP/1.1\r\nHost: p\r\n\r\n"),
		serve("a method in small letters", "get /a HTTP/1.1\r\nHost: p\r\n\r\n", "get /a "),
		serve("a method of its own", "SMUGGLE! /a HTTP/1.1\r\nHost: p\r\n\r\n", "SMUGGLE! /a "),
		reject(400, "no method", " /a HTTP/1.1\r\nHost: p\r\n\r\n"),
		serve("absolute target", "GET http://else.example/a HTTP/1.1\r\nHost: q\r\n\r\n", "GET /a "),
		serve("a target with a name and no path", "GET http://else.example HTTP/1.1\r\nHost: q\r\n\r\n", "GET / "),
		serve("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: p\r\n\r\n", "OPTIONS * "),
		{"CONNECT", "CONNECT else.example:443 HTTP/1.1\r\nHost: else.example:443\r\n\r\n", []int{405}, open, nil},
		serve("a path that looks like a host", "GET //else.example/a HTTP/1.1\r\nHost: p\r\n\r\n", "GET //else.example/a "),
		serve("a backslash in the target", "GET /a\\..\\b HTTP/1.1\r\nHost: p\r\n\r\n", "GET /a\\..\\b "),
		serve("a fragment in the target", "GET /a#b HTTP/1.1\r\nHost: p\r\n\r\n", "GET /a#b "),
		{"half an escape", "GET /100% HTTP/1.1\r\nHost: p\r\n\r\n", []int{400}, closed, nil},
		reject(431, "a target of 100 KiB", "GET /"+strings.Repeat("a", 100<<10)+" HTTP/1.1\r\nHost: p\r\n\r\n"),
		reject(431, "no line in 200 KiB", strings.Repeat("a", 200<<10)),
		reject(400, "TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("x", 500)+"\r\n\r\n"),

		// What asks for something else.
		serve("Upgrade: h2c", get+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "GET /a "),
		serve("Upgrade: websocket", get+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n\r\n"+next, "GET /a ", "POST /next "),
		serve("Expect: 100-continue, body at once", post+"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"+next, "POST /a abc", "POST /next "),
		serve("Expect: 100-continue, chunked", post+"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /a abc"),
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

func (row hostile) send(w between) {
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
		c.SetReadDeadline(time.Now().Add(patience))
		extra, err := io.ReadAll(c.in)
		assert.Assert(t, !isTimeout(err), "the connection stays open")
		assert.Equal(t, string(extra), "")
	case open:
		c.send("POST /canary HTTP/1.1\r\nHost: p\r\nContent-Length: 6\r\n\r\ncanary")
		ids = append(ids, c.status(200))
		row.upstream = append(row.upstream, "POST /canary canary")
	case ending:
		assert.Assert(t, c.res.Close, "the answer does not say that the connection ends")
		c.Close()
	case cut:
		c.SetReadDeadline(time.Now().Add(patience))
		_, err := c.in.ReadByte()
		assert.Assert(t, err != nil && !isTimeout(err), "the connection stays open")
		w.book(left, "POST", w.p.log.request(t, "/cut"))
	case waits:
		w.reaches("proxy_held_body_bytes", 10<<20) // room for a body of unknown length
		c.Close()
		w.reaches("proxy_held_body_bytes", 0)
		w.book(left, "POST", w.p.log.request(t, "/waits"))
	}
	for _, id := range ids {
		w.bookAnswer(id)
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
func (c *client) status(want int) (id string) {
	c.t.Helper()
	c.res = nil
	assert.NilError(c.t, c.head())
	assert.Equal(c.t, c.res.StatusCode, want)
	_, err := io.Copy(io.Discard, c.res.Body)
	assert.NilError(c.t, err)
	return c.res.Header.Get("X-Proxy-Request-Id")
}

// bookAnswer adds an answer of the proxy to what the counters must show.
func (w between) bookAnswer(id string) {
	w.t.Helper()
	if id == "" {
		return
	}
	logged := w.p.log.wait(w.t, "of the request "+id, nil, func(l line) bool { return l["request_id"] == id && l["msg"] == "request" })
	method := logged["method"].(string)
	if !slices.Contains([]string{"GET", "POST", "OPTIONS", "CONNECT"}, method) {
		method = "OTHER" // contract section 5
	}
	w.book(endOf(logged, int(logged["status"].(float64))), method, logged)
}
