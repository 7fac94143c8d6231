package main

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 8: one line per finished request, with these keys.
func TestRequestLine(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Request-Id", "req_of_upstream")
		io.WriteString(w, "12345")
	}))
	before := time.Now()
	resp, _ := do(t, "POST", p.url("/v1/messages?secret=query"), "1234567")
	line := requestLine(p, "/v1/messages")

	keys := slices.Sorted(maps.Keys(line))
	assert.DeepEqual(t, keys, []string{"attempts", "bytes_in", "bytes_out", "duration_ms", "headers_ms", "level", "method", "msg",
		"outcome", "path", "request_id", "status", "time", "upstream_request_id"})
	logged, err := time.Parse(time.RFC3339Nano, line["time"].(string))
	assert.NilError(t, err)
	assert.Check(t, logged.After(before.Add(-time.Second)) && logged.Before(time.Now().Add(time.Second)))
	assert.Check(t, line["headers_ms"].(float64) <= line["duration_ms"].(float64))
	for key, want := range map[string]any{
		"level": "INFO", "method": "POST", "path": "/v1/messages", "status": 200.0, "attempts": 1.0, "bytes_in": 7.0,
		"bytes_out": 5.0, "outcome": "complete", "upstream_request_id": "req_of_upstream",
		"request_id": resp.Header.Get("X-Proxy-Request-Id"),
	} {
		assert.Check(t, line[key] == want, "%s is %v, not %v", key, line[key], want)
	}
}

// Contract section 8: standard error is JSON lines and nothing else, standard output is empty, and none of the secrets of
// a request or of an answer is in it, at the most talkative level.
func TestLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	garbage := newGarbage(t)
	for name, upstream := range map[string]string{"an API": newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session=secret")
		io.WriteString(w, "secret answer")
	}), "garbage": garbage, "nothing": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			p := startEnv(t, []string{"LOG_LEVEL=debug"}, upstream, "max_body_bytes = 100")
			headers := []string{"Authorization: Bearer secret", "X-Api-Key: secret", "Cookie: secret", "Proxy-Authorization: secret"}
			dial(t, p.addr).request("GET", "/plain?secret", headers...)
			dial(t, p.addr).request("GET", "http://user:secret@elsewhere.example/absolute?secret", headers...)
			dial(t, p.addr).request("CONNECT", "secret.example:443", headers...)
			dial(t, p.addr).request("GET", "/%zz-secret", headers...)
			dial(t, p.addr).request("GET", "/bad", append(headers, "bad secret: x")...)
			do(t, "POST", p.url("/body"), "secret")
			do(t, "POST", p.url("/large"), "secret"+strings.Repeat("x", 1000))
			requestLine(p, "/large")
			for line := range strings.Lines(p.stderr.text()) {
				assert.Check(t, strings.HasPrefix(line, "{"), "not JSON: %s", line)
				assert.Check(t, !strings.Contains(line, "secret"), "a secret in the log: %s", line)
			}
			_, text := get(t, p.url("/metrics"))
			assert.Check(t, !strings.Contains(text, "secret"), "a secret in /metrics")
		})
	}
}
