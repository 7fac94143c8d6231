package proxy_test

import (
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"

	"gotest.tools/v3/assert"
)

// TestInformational covers rows 2.7 and 1.4 for 1xx: 103 arrives at once, before the final response exists, with its own headers, less
// those that concern one connection.
func TestInformational(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{}, 1)
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.Header().Set("Keep-Alive", "timeout=5")
		if r.ProtoMajor == 1 { // HTTP/2 has no Connection
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "1")
		}
		w.WriteHeader(http.StatusEarlyHints)
		select {
		case <-seen:
		case <-r.Context().Done():
		}
		clear(w.Header())
	}, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL)
		req, err := http.NewRequest("GET", g.url, nil)
		assert.NilError(t, err)
		var got []any
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, code, h)
			seen <- struct{}{}
			return nil
		}}
		res, err := g.client.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
		assert.NilError(t, err)
		assert.Equal(t, res.StatusCode, http.StatusOK)
		assert.Equal(t, res.Header.Get("Link"), "", "a header of the 103 is in the final response")
		assert.DeepEqual(t, got, []any{http.StatusEarlyHints, textproto.MIMEHeader{"Link": {"</a>"}}})
		assert.Equal(t, g.finished(t)["status"], 200.0)
		assert.Equal(t, g.metric(t, `proxy_requests_total{method="GET",status="103"}`), 0.0)
	})
	t.Run("not to an HTTP/1.0 client", func(t *testing.T) {
		seen <- struct{}{}
		g := start(t, serveUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			<-seen
		}).URL)
		c := g.dial(t)
		c.send("GET / HTTP/1.0\r\n\r\n")
		assert.Equal(t, c.response("GET").StatusCode, http.StatusOK) // without a 103 before it
	})
}

// TestInterimSwitchingProtocols covers rows 1.4 and 3.5: net/http takes a 101 over HTTP/2 for an informational response. To pass it on
// would hand the client a tunnel.
func TestInterimSwitchingProtocols(t *testing.T) {
	t.Parallel()
	upstreamURL := serveFrames(t, func(r *h2request) bool {
		r.frame(frameHeaders, flagEndHeaders, r.stream, 0x08, 3, '1', '0', '1') // :status 101, as a literal
		r.ok()
		return true
	})
	g := start(t, upstreamURL)
	message := assertOurError(t, g.get(t, "/"), http.StatusBadGateway)
	assert.Equal(t, message, "upstream connection failed: the answer was not valid HTTP")
}
