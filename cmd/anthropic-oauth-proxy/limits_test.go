package main

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 4: the listener speaks HTTP/1.1 and nothing else: no h2c.
func TestNoH2C(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo))
	c := dial(t, p.addr)
	_, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	assert.NilError(t, err)
	answer, err := c.in.ReadString('\n')
	assert.NilError(t, err)
	assert.Check(t, strings.HasPrefix(answer, "HTTP/1.1 505 "), "%q", answer)
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
	warning := p.logged("a warning", func(e entry) bool { return e["level"] == "WARN" })["msg"].(string)
	assert.Check(t, strings.Contains(warning, "TLS"), warning)
	assert.Equal(t, strings.Count(p.stderr.text(), `"level":"WARN"`), 1)
}
