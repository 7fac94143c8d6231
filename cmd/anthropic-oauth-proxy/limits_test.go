package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// Contract section 4: client connections are at most twice max_connections; beyond, the longest idle one is closed.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo), "max_connections = 4")
	use := func(c *rawConn) {
		resp, _ := c.request("GET", "/v1")
		assert.Equal(t, resp.StatusCode, http.StatusOK)
	}
	var conns []*rawConn
	for range 8 {
		c := dial(t, p.addr)
		use(c)
		conns = append(conns, c)
	}
	for _, c := range conns {
		use(c) // all are still there
	}
	for range 8 {
		use(dial(t, p.addr))
	}
	_, err := conns[0].in.ReadByte()
	assert.Equal(t, err, io.EOF)
}

// Contract section 4: while four scrapes of /metrics are not read, more get 503, and all else goes on.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo))
	for range 4 {
		c := dial(t, p.addr)
		go io.WriteString(c, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n", 10_000))
	}
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		resp, _ := get(t, p.url("/metrics"))
		return poll.Compare(cmp.Equal(resp.StatusCode, http.StatusServiceUnavailable))
	}, poll.WithTimeout(patience), poll.WithDelay(5*time.Millisecond))
	for _, path := range []string{"/health", "/v1"} {
		resp, _ := get(t, p.url(path))
		assert.Equal(t, resp.StatusCode, http.StatusOK)
	}
}

// Contract section 8: a client that speaks TLS to this port causes one warning, and other clients cause none.
func TestTLSToPlainPort(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo))
	for range 3 {
		_, err := tls.Dial("tcp", p.addr, &tls.Config{ServerName: "proxy.test"})
		assert.ErrorContains(t, err, "")
	}
	get(t, p.url("/last"))
	requestLine(p, "/last")
	warning := p.logged("a warning", func(e entry) bool { return e["level"] == "WARN" })["msg"].(string)
	assert.Check(t, strings.Contains(warning, "TLS"), warning)
	assert.Equal(t, strings.Count(p.stderr.text(), `"level":"WARN"`), 1)
}
