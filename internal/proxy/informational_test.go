package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"

	"gotest.tools/v3/assert"
)

// TestInformational covers row 2.7 for 1xx: 103 arrives at once, before the final response exists, with its own headers.
func TestInformational(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{}, 1)
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		select {
		case <-seen:
		case <-r.Context().Done():
		}
		w.Header().Del("Link")
	}, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL)
		req, err := http.NewRequest("GET", g.url, nil)
		assert.NilError(t, err)
		var got []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
			seen <- struct{}{}
			return nil
		}}
		res, err := g.client.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
		assert.NilError(t, err)
		assert.Equal(t, res.StatusCode, http.StatusOK)
		assert.Equal(t, res.Header.Get("Link"), "", "a header of the 103 is in the final response")
		assert.DeepEqual(t, got, []string{"103 </a>"})
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
		assert.Equal(t, c.response("GET").StatusCode, http.StatusOK)
	})
}

// TestInformationalHopByHop covers row 1.4 for 1xx: it holds for every response.
func TestInformationalHopByHop(t *testing.T) {
	t.Parallel()
	upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
		readMessage(in)
		io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"+noContent)
	})
	c := start(t, upstreamURL).dial(t)
	c.send("GET / HTTP/1.1\r\nHost: p\r\n\r\n")
	head, err := readHead(c.in)
	assert.NilError(t, err)
	assert.Equal(t, head[0], "HTTP/1.1 103 Early Hints")
	assert.DeepEqual(t, normal(head[1:]), []string{"link: </a>"})
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
