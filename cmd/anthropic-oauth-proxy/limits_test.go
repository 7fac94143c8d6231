package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 4: the listener speaks HTTP/1.1 and nothing else: no h2c, neither at once nor by upgrade.
func TestNoH2C(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo))
	c := dial(t, p.addr)
	_, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	assert.NilError(t, err)
	answer, err := c.in.ReadString('\n')
	assert.NilError(t, err)
	assert.Check(t, strings.HasPrefix(answer, "HTTP/1.1 505 "), "%q", answer)
	resp, body := dial(t, p.addr).request("GET", "/v1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, body, "upstream saw /v1")
}

// Contract section 8: a client that speaks TLS to this port is told of, once; one that does not is not.
func TestTLSToPlainPort(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo))
	get(t, p.url("/plain"))
	for range 3 {
		_, err := tls.Dial("tcp", p.addr, &tls.Config{ServerName: "proxy.test"})
		assert.ErrorContains(t, err, "")
	}
	get(t, p.url("/last"))
	requestLine(p, "/last")
	entries, _ := p.stderr.entries()
	var warnings []any
	for _, e := range entries {
		if e["level"] == "WARN" {
			warnings = append(warnings, e["msg"])
		}
	}
	assert.Equal(t, len(warnings), 1, "%v", warnings)
	assert.Check(t, strings.Contains(fmt.Sprint(warnings), "TLS"), "%v", warnings)
}
