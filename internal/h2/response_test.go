package h2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// What a peer may answer, and what becomes of it.
func TestResponses(t *testing.T) {
	ok := "200 [] EOF"
	broken := "h2: the peer does not keep to the protocol"
	reset := "RST_STREAM 1 PROTOCOL_ERROR"
	for name, test := range map[string]struct {
		method string
		answer func(p *peer)
		want   string // status, trailer and what ended the body after which bytes; or RoundTrip's error
		said   string // what the peer gets to hear about it
	}{
		"headers alone":         {"GET", func(p *peer) { p.headersEnd(1, ":status: 200") }, ok, ""},
		"one frame":             {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.dataEnd(1, "hello") }, "200 [] hello EOF", ""},
		"end in an empty frame": {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.data(1, "hello"); p.dataEnd(1, "") }, "200 [] hello EOF", ""},
		"padding": {"GET", func(p *peer) {
			p.headers(1, ":status: 200")
			p.out.WriteDataPadded(1, true, []byte("hello"), make([]byte, 200))
		}, "200 [] hello EOF", ""},
		"status of its own":            {"GET", func(p *peer) { p.headersEnd(1, ":status: 599") }, "599 [] EOF", ""},
		"no status":                    {"GET", func(p *peer) { p.headersEnd(1, "server: x") }, broken, reset},
		"no fields":                    {"GET", func(p *peer) { p.headersEnd(1) }, broken, reset},
		"status of four digits":        {"GET", func(p *peer) { p.headersEnd(1, ":status: 0200") }, broken, reset},
		"status with a sign":           {"GET", func(p *peer) { p.headersEnd(1, ":status: +200") }, broken, reset},
		"status below 100":             {"GET", func(p *peer) { p.headersEnd(1, ":status: 099") }, broken, reset},
		"status twice":                 {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", ":status: 200") }, broken, reset},
		"status after a field":         {"GET", func(p *peer) { p.headersEnd(1, "server: x", ":status: 200") }, broken, reset},
		"a request's pseudo field":     {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", ":path: /") }, broken, reset},
		"unknown pseudo field":         {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", ":x: /") }, broken, reset},
		"capital letters":              {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "Server: x") }, broken, reset},
		"line feed in a value":         {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "server: x\ny") }, broken, reset},
		"switching protocols":          {"GET", func(p *peer) { p.headers(1, ":status: 101") }, broken, reset},
		"interim that ends the stream": {"GET", func(p *peer) { p.headersEnd(1, ":status: 103") }, broken, reset},
		"data before headers":          {"GET", func(p *peer) { p.data(1, "x") }, broken, reset},
		"data after an interim":        {"GET", func(p *peer) { p.headers(1, ":status: 103"); p.dataEnd(1, "x") }, broken, reset},

		"declared length":        {"GET", func(p *peer) { p.headers(1, ":status: 200", "content-length: 5"); p.dataEnd(1, "hello") }, "200 [] hello EOF", ""},
		"declared nothing":       {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 0") }, ok, ""},
		"too short":              {"GET", func(p *peer) { p.headers(1, ":status: 200", "content-length: 6"); p.dataEnd(1, "hello") }, "200 [] hello unexpected EOF", ""},
		"too short without data": {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 6") }, "200 [] unexpected EOF", ""},
		"too short with trailer": {"GET", func(p *peer) {
			p.headers(1, ":status: 200", "content-length: 6")
			p.data(1, "hello")
			p.headersEnd(1, "t: 1")
		}, "200 [] hello unexpected EOF", ""},
		"too long":                    {"GET", func(p *peer) { p.headers(1, ":status: 200", "content-length: 4"); p.dataEnd(1, "hello") }, "200 [] " + broken, reset},
		"lengths that agree":          {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 0", "content-length: 0") }, ok, ""},
		"lengths that differ":         {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 0", "content-length: 1") }, broken, reset},
		"length with a sign":          {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: +0") }, broken, reset},
		"negative length":             {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: -1") }, broken, reset},
		"length that is no number":    {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: five") }, broken, reset},
		"length beyond all numbers":   {"GET", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 9223372036854775808") }, broken, reset},
		"HEAD":                        {"HEAD", func(p *peer) { p.headersEnd(1, ":status: 200", "content-length: 5") }, ok, ""},
		"HEAD with an empty frame":    {"HEAD", func(p *peer) { p.headers(1, ":status: 200", "content-length: 5"); p.dataEnd(1, "") }, ok, ""},
		"HEAD with a body":            {"HEAD", func(p *peer) { p.headers(1, ":status: 200", "content-length: 5"); p.dataEnd(1, "hello") }, "200 [] " + broken, reset},
		"not modified with a length":  {"GET", func(p *peer) { p.headersEnd(1, ":status: 304", "content-length: 5") }, "304 [] EOF", ""},
		"no content, but a body":      {"GET", func(p *peer) { p.headers(1, ":status: 204"); p.dataEnd(1, "x") }, "204 [] " + broken, reset},
		"headers after the end":       {"GET", func(p *peer) { p.headersEnd(1, ":status: 200"); p.headersEnd(1, ":status: 500") }, ok, ""},
		"data after the end":          {"GET", func(p *peer) { p.headersEnd(1, ":status: 200"); p.dataEnd(1, "x") }, ok, ""},
		"reset after the end":         {"GET", func(p *peer) { p.headersEnd(1, ":status: 200"); p.out.WriteRSTStream(1, http2.ErrCodeInternal) }, ok, ""},
		"response after the response": {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.headersEnd(1, ":status: 200") }, "200 [] " + broken, reset},

		"trailer":                              {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.data(1, "x"); p.headersEnd(1, "t: 1", "t: 2") }, "200 [T=1 T=2] x EOF", ""},
		"announced trailer":                    {"GET", func(p *peer) { p.headers(1, ":status: 200", "trailer: t, u"); p.headersEnd(1, "t: 1") }, "200 [T=1 U=] EOF", ""},
		"announced, not sent":                  {"GET", func(p *peer) { p.headers(1, ":status: 200", "trailer: t"); p.dataEnd(1, "x") }, "200 [T=] x EOF", ""},
		"trailer of no fields":                 {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.data(1, "x"); p.headersEnd(1) }, "200 [] x EOF", ""},
		"trailer to HEAD":                      {"HEAD", func(p *peer) { p.headers(1, ":status: 200"); p.headersEnd(1, "t: 1") }, "200 [T=1] EOF", ""},
		"trailer that does not end the stream": {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.headers(1, "t: 1") }, "200 [] " + broken, reset},
		"trailer with a pseudo field":          {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.headersEnd(1, ":status: 200", "t: 1") }, "200 [] " + broken, reset},

		"reset before headers": {"GET", func(p *peer) { p.out.WriteRSTStream(1, http2.ErrCodeInternal) }, "h2: the peer reset the stream: INTERNAL_ERROR", ""},
		"reset after an interim": {"GET", func(p *peer) { p.headers(1, ":status: 103"); p.out.WriteRSTStream(1, http2.ErrCodeNo) },
			"h2: the peer reset the stream: NO_ERROR", ""},
		"reset after headers": {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream) },
			"200 [] h2: the peer reset the stream: REFUSED_STREAM", ""},
		"reset after data": {"GET", func(p *peer) {
			p.headers(1, ":status: 200", "content-length: 5")
			p.data(1, "hello")
			p.out.WriteRSTStream(1, http2.ErrCodeNo)
		}, "200 [] hello h2: the peer reset the stream: NO_ERROR", ""},
		"end of the connection before headers": {"GET", func(p *peer) { p.net.Close() }, "h2: the peer closed the connection", "EOF"},
		"end of the connection after headers":  {"GET", func(p *peer) { p.headers(1, ":status: 200"); p.net.Close() }, "200 [] h2: the peer closed the connection", "EOF"},
		"end of the connection within a frame": {"GET", func(p *peer) {
			p.headers(1, ":status: 200")
			p.data(1, "hel")
			p.net.Write([]byte("\x00\x00\x02\x00\x01\x00\x00\x00\x01l"))
			p.net.Close()
		}, "200 [] hel unexpected EOF", "EOF"},
		"end of the connection after the declared length": {"GET", func(p *peer) {
			p.headers(1, ":status: 200", "content-length: 5")
			p.data(1, "hello")
			p.net.Close()
		}, "200 [] hello h2: the peer closed the connection", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				x := send(tr, test.method, "")
				assert.DeepEqual(t, p.take(), []string{"HEADERS 1 end"})
				test.answer(p)
				synctest.Wait()
				assert.Assert(t, x.done)
				assert.Equal(t, x.outcome(t), test.want)
				assert.Equal(t, strings.Join(p.take(), ", "), test.said)
			})
		})
	}
}

// outcome says what came of an exchange.
func (x *exchange) outcome(t *testing.T) string {
	synctest.Wait()
	if x.err != nil {
		return x.err.Error()
	}
	x.read(t)
	var words []string
	for _, name := range []string{"T", "U"} {
		for _, v := range x.resp.Trailer[name] {
			words = append(words, name+"="+v)
		}
		if values, ok := x.resp.Trailer[name]; ok && len(values) == 0 {
			words = append(words, name+"=")
		}
	}
	return strings.ReplaceAll(fmt.Sprint(x.resp.StatusCode, " ", words, " ", string(x.got), " ", x.ended), "  ", " ")
}

// The response has the form that net/http's users know.
func TestResponse(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		p.headers(1, ":status: 404", "content-type: text/plain", "x-list: a", "x-list: b", "content-length: 5", "content-length: 5", "trailer: t")
		synctest.Wait()
		assert.NilError(t, x.err)
		r := x.resp
		assert.Equal(t, fmt.Sprint(r.Status, r.StatusCode, r.Proto, r.ProtoMajor, r.ProtoMinor, r.ContentLength), "404 Not Found404HTTP/2.02 0 5")
		assert.DeepEqual(t, r.Header, http.Header{"Content-Type": {"text/plain"}, "X-List": {"a", "b"}, "Content-Length": {"5"}, "Trailer": {"t"}})
		assert.DeepEqual(t, r.Trailer, http.Header{"T": nil})
		assert.Equal(t, r.Request.URL.Path, "/path")
		p.data(1, "hello")
		synctest.Wait()
		assert.Equal(t, r.Body.(interface{ Buffered() int }).Buffered(), 5)
		n, err := r.Body.Read(nil)
		assert.Assert(t, n == 0 && err == nil)
		assert.NilError(t, r.Body.Close())
		_, err = r.Body.Read(make([]byte, 1))
		assert.Assert(t, err != nil && err != io.EOF, "%v", err)
		assert.NilError(t, r.Body.Close())
		assert.DeepEqual(t, p.take(), []string{"RST_STREAM 1 CANCEL"})
	})
}

// Reading nothing waits until there is something to read, or the body's end.
func TestReadNothing(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		synctest.Wait()
		p.headers(1, ":status: 200")
		synctest.Wait()
		wait := func() *error {
			result := new(error)
			*result = errors.New("it waits")
			go func() { _, *result = x.resp.Body.Read(nil) }()
			synctest.Wait()
			return result
		}
		result := wait()
		assert.Error(t, *result, "it waits")
		p.data(1, "hello")
		synctest.Wait()
		assert.NilError(t, *result)
		assert.NilError(t, *wait())
		n, err := x.resp.Body.Read(make([]byte, 10))
		assert.Assert(t, n == 5 && err == nil)
		result = wait()
		assert.Error(t, *result, "it waits")
		p.dataEnd(1, "")
		synctest.Wait()
		assert.Equal(t, *result, io.EOF)
	})
}

// Reading from a closed body does not look like its end, even if the peer has ended it.
func TestReadAfterClose(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		p.headers(1, ":status: 200")
		p.dataEnd(1, "hello")
		synctest.Wait()
		assert.NilError(t, x.resp.Body.Close())
		_, err := x.resp.Body.Read(make([]byte, 1))
		assert.ErrorIs(t, err, errBodyClosed)
		assert.Equal(t, len(p.take()), 0)
	})
}

// Closing the body ends a read that waits.
func TestCloseWhileReading(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		p.headers(1, ":status: 200")
		x.read(t)
		x.resp.Body.Close()
		synctest.Wait()
		assert.ErrorIs(t, x.ended, errBodyClosed)
	})
}

// Interim responses are passed on in order, all before the response, and a caller that does not want them ends the exchange.
func TestInterim(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		var seen []string
		x := interimTo(tr, func(code int, h http.Header) error {
			seen = append(seen, fmt.Sprint(code, h.Get("link")))
			if code == 199 {
				return errors.New("no more")
			}
			return nil
		})
		p.take()
		p.headers(1, ":status: 103", "link: a")
		synctest.Wait()
		assert.DeepEqual(t, seen, []string{"103a"})
		p.headers(1, ":status: 100")
		p.headers(1, ":status: 103", "link: b")
		synctest.Wait()
		assert.DeepEqual(t, seen, []string{"103a", "100", "103b"})
		assert.Assert(t, !x.done)
		p.headers(1, ":status: 199")
		synctest.Wait()
		assert.ErrorContains(t, x.err, "no more")
		assert.DeepEqual(t, p.take(), []string{"RST_STREAM 1 CANCEL"})
	})
}
