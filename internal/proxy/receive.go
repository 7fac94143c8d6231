package proxy

import (
	"io"
	"net/http"
)

// receive is the ReverseProxy's ModifyResponse: the upstream has answered, so no attempt can follow.
func (p *proxy) receive(res *http.Response) error {
	x := exchangeFrom(res.Request.Context())
	if x.held != nil {
		x.held.release()
	}
	x.answered = true
	x.upstreamID = res.Header.Get("Request-Id")
	res.Header.Del("X-Proxy-Request-Id") // ours takes its place when the header is written
	if len(res.Trailer) > 0 && res.Request.Method != http.MethodHead {
		res.Header.Del("Content-Length") // HTTP/1.1 has trailers only after a chunked body
	}
	p.metrics.RateLimits(res.Header)
	res.Body = &recordedBody{res.Body, x}
	return nil
}

// recordedBody keeps the error that ended the upstream's body; ReverseProxy turns it into a panic.
type recordedBody struct {
	io.ReadCloser
	x *exchange
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.x.readErr = err
	}
	return n, err
}
