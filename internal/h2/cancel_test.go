package h2

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// What is cancelled ends at once, at every point of an exchange.
func TestCancel(t *testing.T) {
	cause := errors.New("the client left")
	for name, test := range map[string]struct {
		say  func(p *peer, x *exchange)
		said string
		err  func(x *exchange) error
	}{
		"before the headers": {func(p *peer, x *exchange) {}, "RST_STREAM 1 CANCEL", func(x *exchange) error { return x.err }},
		"after an interim": {func(p *peer, x *exchange) { p.headers(1, ":status: 103") }, "RST_STREAM 1 CANCEL",
			func(x *exchange) error { return x.err }},
		"in the body": {func(p *peer, x *exchange) { p.headers(1, ":status: 200"); p.data(1, "hello") }, "RST_STREAM 1 CANCEL",
			func(x *exchange) error { return x.ended }},
		"before the trailer": {func(p *peer, x *exchange) {
			p.headers(1, ":status: 200", "content-length: 5", "trailer: t")
			p.data(1, "hello")
		},
			"RST_STREAM 1 CANCEL", func(x *exchange) error { return x.ended }},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				x := send(tr, "POST", "hello")
				p.take()
				test.say(p, x)
				synctest.Wait()
				if x.done {
					x.read(t)
				}
				x.cancel(cause)
				assert.Equal(t, strings.Join(p.take(), ", "), test.said)
				assert.ErrorIs(t, test.err(x), cause)
				assert.Assert(t, x.sent.isClosed())
				p.headersEnd(1, ":status: 200") // crossed our reset
				p.out.WriteRSTStream(1, http2.ErrCodeNo)
				assert.Equal(t, len(p.take()), 0)
			})
		})
	}
}

// A request that is over before it begins is not sent.
func TestCancelledBefore(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		cause := errors.New("the client left")
		x := &exchange{sent: &reqBody{Reader: strings.NewReader("hello")}}
		req, _ := http.NewRequest("POST", "https://upstream.example/", x.sent)
		req.ContentLength = 5
		x.send(cancelled{tr, x, cause}, req)
		assert.Equal(t, len(p.take()), 0)
		assert.ErrorIs(t, x.err, cause)
		assert.Assert(t, x.sent.isClosed())
	})
}

// cancelled cancels the exchange before it begins.
type cancelled struct {
	http.RoundTripper
	x     *exchange
	cause error
}

func (c cancelled) RoundTrip(req *http.Request) (*http.Response, error) {
	c.x.cancel(c.cause)
	return c.RoundTripper.RoundTrip(req)
}
