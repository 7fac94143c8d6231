package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip connects at once and sends the request, and then it is f's.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil {
		trace.GotConn(httptrace.GotConnInfo{})
		trace.WroteHeaders()
	}
	return f(r)
}

func request(ctx context.Context) *http.Request {
	r, err := http.NewRequestWithContext(ctx, "POST", "http://upstream/v1/messages", strings.NewReader("body"))
	if err != nil {
		panic(err)
	}
	return r
}

// answer is a response whose body is fed by the test; it breaks off when the attempt's context ends.
func answer(r *http.Request) (*http.Response, *io.PipeWriter) {
	pr, pw := io.Pipe()
	context.AfterFunc(r.Context(), func() { pw.CloseWithError(context.Cause(r.Context())) })
	return &http.Response{StatusCode: 200, Body: pr, Header: http.Header{}}, pw
}

// If an attempt times out before it has a connection, the error names the current step, and nothing was sent (row 2.1).
func TestTimeoutNamesTheStep(t *testing.T) {
	for want, step := range map[string]func(*httptrace.ClientTrace){
		"cannot resolve the upstream's name": func(c *httptrace.ClientTrace) { c.DNSStart(httptrace.DNSStartInfo{}) },
		"cannot connect":                     func(*httptrace.ClientTrace) {},
		"TLS: the handshake did not finish":  func(c *httptrace.ClientTrace) { c.TLSHandshakeStart() },
		"no response headers":                func(c *httptrace.ClientTrace) { c.GotConn(httptrace.GotConnInfo{}) },
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &attempt{headerTimeout: 3 * time.Second, idleTimeout: time.Minute, next: stuckAt(step)}
				_, err := a.roundTrip(request(t.Context()), time.Now())
				e := failed(t, err)
				assert.Equal(t, e.Kind, Timeout)
				assert.Equal(t, e.Sent, NothingSent)
				assert.Equal(t, e.Reason, want)
				assert.Equal(t, e.Limit, 3*time.Second)
			})
		})
	}
}

// stuckAt is a transport that gets as far as the step and no further.
type stuckAt func(*httptrace.ClientTrace)

func (f stuckAt) RoundTrip(r *http.Request) (*http.Response, error) {
	f(httptrace.ContextClientTrace(r.Context()))
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Row 3.2: once the headers are there, a stream that keeps sending lives for hours; its context ends with its body.
func TestLongStreamIsNeverCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ctx context.Context
		var feed *io.PipeWriter
		a := &attempt{headerTimeout: time.Minute, idleTimeout: time.Minute, next: roundTripper(func(r *http.Request) (*http.Response, error) {
			ctx = r.Context()
			resp, pw := answer(r)
			feed = pw
			return resp, nil
		})}
		resp, err := a.roundTrip(request(t.Context()), time.Now())
		assert.NilError(t, err)
		go func() {
			for range 12 * 60 * 2 { // 12 hours
				time.Sleep(30 * time.Second)
				feed.Write([]byte("event\n\n"))
			}
			feed.Close()
		}()
		start := time.Now()
		got, err := io.ReadAll(resp.Body)
		assert.NilError(t, err)
		assert.Equal(t, len(got), 12*60*2*len("event\n\n"))
		assert.Assert(t, time.Since(start) >= 12*time.Hour)
		assert.NilError(t, ctx.Err())
		resp.Body.Close()
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
	})
}

// Row 2.6: we send a refused request again if it has a body. Without one, net/http has already tried for a minute.
func TestRefusedIsSentAgainOnce(t *testing.T) {
	a := &attempt{headerTimeout: time.Minute, next: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("stream error: stream ID 1; REFUSED_STREAM; received from peer")
	})}
	for _, body := range []string{"body", ""} {
		r := request(t.Context())
		r.ContentLength = int64(len(body))
		_, err := a.roundTrip(r, time.Now())
		assert.Equal(t, failed(t, err).Sent, NothingSent)
		assert.Equal(t, failed(t, err).unprocessed, body != "")
	}
}

// Row 1.4: an unsolicited 101 is a connection error, and its body is closed.
func TestUnaskedSwitchingProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed *io.PipeWriter
		a := &attempt{headerTimeout: time.Minute, idleTimeout: time.Minute, next: roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, pw := answer(r)
			resp.StatusCode, feed = 101, pw
			return resp, nil
		})}
		_, err := a.roundTrip(request(t.Context()), time.Now())
		assert.Equal(t, failed(t, err).Kind, Connection)
		_, err = feed.Write([]byte("x"))
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	})
}
