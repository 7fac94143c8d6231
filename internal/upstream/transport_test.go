package upstream

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Rows 2.1, 2.5, 2.9: the settings that no test here can wait for.
func TestTransportSettings(t *testing.T) {
	assert.Equal(t, dialTimeout, 30*time.Second)
	assert.Equal(t, handshakeTimeout, 10*time.Second)
	assert.Assert(t, deadPeerAfter <= 60*time.Second)
}

// Row 2.9: after a sleep no idle connection is used. Setting the clock, or a busy machine, does not count as a sleep.
func TestSleep(t *testing.T) {
	assert.Assert(t, isSleep(8*time.Hour, 3*time.Second))
	assert.Assert(t, isSleep(time.Minute, 0))
	assert.Assert(t, !isSleep(time.Hour, time.Hour))
	assert.Assert(t, !isSleep(5*time.Second, 0))
	assert.Assert(t, !isSleep(-time.Hour, time.Second))
	var c clock
	assert.Assert(t, !c.slept())
	assert.Assert(t, !c.slept())
}

// Row 2.6: HTTP/2 is what the upstream offers, unless GODEBUG turns it off, as in any Go program.
func TestHTTP2CanBeTurnedOff(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for godebug, protocol := range map[string]string{"": "HTTP/2.0", "http2client=0": "HTTP/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("GODEBUG", godebug)
			rt := newTransport(Options{HeaderTimeout: time.Minute})
			defer rt.CloseIdleConnections()
			trust(rt, s)
			r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
			assert.NilError(t, err)
			resp, err := (&attempt{next: rt, headerTimeout: time.Minute, idleTimeout: time.Minute}).roundTrip(r, time.Now())
			assert.NilError(t, err)
			resp.Body.Close()
			assert.Equal(t, resp.Proto, protocol)
		})
	}
}
