package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 8: standard error is JSON lines and nothing else, standard output is empty, and none of the secrets of
// a request or of an answer is in it, at the most talkative level.
func TestLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	raw := func(answer string) string {
		return newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			assert.Check(t, err)
			io.WriteString(conn, answer)
			conn.Close()
		})
	}
	garbage := raw("HTTP/1.1 200 secret\r\nsecret header without colon\r\nX: secret\r\n\r\nsecret")
	surplus := raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsecret answer to no request")
	for name, upstream := range map[string]string{"an API": newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session=secret")
		io.WriteString(w, "secret answer")
	}), "garbage": garbage, "surplus": surplus, "nothing": "http://127.0.0.1:1"} {
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
