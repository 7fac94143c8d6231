package main

import (
	"encoding/json"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 7: without flags, environment and file the built-in defaults are the configuration. This is the
// contract's own example file, but for the quotes.
func TestDefaults(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.Equal(t, call(t, nil, "--check"), outcome{0, "configuration ok: built-in defaults\n", ""})
	o := call(t, nil, "--print-config")
	assert.Equal(t, o.code, 0)
	assert.Equal(t, o.stderr, "")
	assert.Equal(t, strings.ReplaceAll(o.stdout, "'", `"`), `[proxy]
listen_addr = "127.0.0.1:8080"
upstream_url = "https://api.anthropic.com"
timeout_secs = 600
retries = 2
max_connections = 1000
max_body_bytes = 33554432
max_buffered_bytes = 67108864
drain_timeout_secs = 30

[[headers]]
name = "anthropic-beta"
value = "oauth-2025-04-20"
mode = "add"
`)
}

// Contract section 7: what --print-config prints is a file that means the same.
func TestPrintConfigRoundTrip(t *testing.T) {
	for _, lines := range [][]string{
		{`[proxy]`, `listen_addr = "[::1]:9"`, `upstream_url = "https://gateway.example:8443/prefix/"`, `timeout_secs = 61`, `retries = 5`,
			`max_connections = 7`, `max_body_bytes = 11`, `max_buffered_bytes = 12`, `drain_timeout_secs = 0`,
			`[[headers]]`, `name = "X-One"`, `value = "a \"quoted\" 'value', with\ttab"`, `[[headers]]`, `name = "x-two"`, `value = ""`},
		{`headers = []`},
		{`headers = [ {name = "a", value = "b", mode = "add"}, {name = "c", value = "d"} ]`, `proxy.retries = 0`, `proxy.timeout_secs = 1`},
	} {
		first := call(t, nil, "--print-config", "--config", writeConfig(t, lines...))
		assert.Equal(t, first.code, 0, first.stderr)
		second := call(t, nil, "--print-config", "--config", writeConfig(t, first.stdout))
		assert.Equal(t, second.stdout, first.stdout)
		for _, line := range lines {
			line = strings.TrimPrefix(line, "proxy.")
			if strings.Contains(line, "_secs = ") || strings.HasPrefix(line, "max_") || strings.HasPrefix(line, "retries") || line == "headers = []" {
				assert.Check(t, strings.Contains(first.stdout, line+"\n"), "%s is not in %s", line, first.stdout)
			}
		}
	}
}

// Contract section 7, R8: what works but should be changed is logged as a warning, a line each, and stops nothing.
func TestWarnings(t *testing.T) {
	file := writeConfig(t, `[tailscale]`, `auth_key = "tskey-secret"`, `[proxy]`, `timeout_secs = 60`, `[[headers]]`, `name = "Anthropic-Beta"`, `value = "x"`, `mode = "set"`)
	o := call(t, map[string]string{"LOG_LEVEL": "info,hyper=warn", "TAILSCALE_SOCKET": "/x", "SSL_CERT_FILE": "/house-ca.pme"}, "--check", "--config", file, "--upstream", "http://gateway.example")
	assert.Equal(t, o.code, 0, o.stderr)
	wants := []string{"TAILSCALE_SOCKET is ignored and may be deleted", `not "info,hyper=warn": the level is info`, "clear text", "timeout_secs is 60", `mode = "add"`, "/house-ca.pme"}
	assert.Equal(t, len(o.lines()), len(wants), o.stderr)
	for i, line := range o.lines() {
		var e struct{ Level, Msg string }
		assert.NilError(t, json.Unmarshal([]byte(line), &e), line)
		assert.Equal(t, e.Level, "WARN")
		assert.Check(t, strings.Contains(e.Msg, wants[i]) && !strings.Contains(e.Msg, "secret"), e.Msg)
	}
}
