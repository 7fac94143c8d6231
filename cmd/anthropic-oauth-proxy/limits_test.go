package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 4: a header section of 32 KiB is accepted and forwarded whole, a larger one is refused with 431, in one header or
// in many.
func TestHeaderSectionLimit(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		n := 0
		for name, values := range r.Header {
			if strings.HasPrefix(name, "X-Big") {
				n += len(values[0])
			}
		}
		io.WriteString(w, strconv.Itoa(n))
	}))
	const limit = 32 << 10
	many := func(size int) (lines []string) {
		for i := range size / 1024 {
			head := fmt.Sprintf("X-Big-%d: ", i)
			lines = append(lines, head+strings.Repeat("x", 1024-len(head)-len("\r\n")))
		}
		return lines
	}
	one := func(size int) []string { return []string{"X-Big: " + strings.Repeat("x", size-len("X-Big: \r\n"))} }
	const rest = len("GET / HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
	resp, body := dial(t, p.addr).request("GET", "/", one(limit-rest)...)
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, body, strconv.Itoa(limit-rest-len("X-Big: \r\n")))
	resp, _ = dial(t, p.addr).request("GET", "/", many(limit-1024)...)
	assert.Equal(t, resp.StatusCode, http.StatusOK)

	for name, headers := range map[string][]string{"one": one(limit + 1<<10), "many": many(limit + 1<<10)} {
		for _, target := range []string{"/v1/messages", "/health"} {
			c := dial(t, p.addr)
			resp, _ := c.request("GET", target, headers...)
			assert.Check(t, resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge, "%s %s: status %d", name, target, resp.StatusCode)
		}
	}
}

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

// Contract section 1: what net/http cannot parse is refused before it is anybody's request, and never repaired.
func TestMalformedTarget(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s reached the upstream", r.RequestURI)
	}))
	for _, target := range []string{"/100%", "/%zz", "v1/messages", "//%"} {
		resp, _ := dial(t, p.addr).request("GET", target)
		assert.Check(t, resp.StatusCode == http.StatusBadRequest, "%s: status %d", target, resp.StatusCode)
	}
}

// Contract section 1: clients that begin an upload and stop delay nobody's small request, though most of the room is theirs.
func TestStoppedUploads(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, echo), "max_body_bytes = 4194304", "max_buffered_bytes = 8388608")
	piece := strings.Repeat("x", 1<<20)
	for range 7 {
		stops := dial(t, p.addr)
		io.WriteString(stops, "POST /stops HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 4194304\r\n\r\n")
		go io.WriteString(stops, piece)
	}
	p.pollMetricAbove("proxy_held_body_bytes", 2<<20)
	start := time.Now()
	for range 3 {
		resp, _ := do(t, "POST", p.url("/small"), piece)
		assert.Equal(t, resp.StatusCode, http.StatusOK)
	}
	assert.Check(t, time.Since(start) < 15*time.Second, "three requests of 1 MiB took %v", time.Since(start))
}
