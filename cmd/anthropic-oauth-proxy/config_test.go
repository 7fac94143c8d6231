package main

import (
	"encoding/json"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 7: without flags, environment and file the configuration is the built-in defaults. What is given shows in it (FuzzLoad proves that the file means the same).
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
	given := call(t, nil, "--print-config", "--listen=[::1]:9", "--config", writeConfig(t, "proxy.retries = 0")).stdout
	assert.Check(t, strings.Contains(given, "listen_addr = '[::1]:9'\n") && strings.Contains(given, "retries = 0\n"), given)
}

// Contract section 7: what works but should be changed is logged as a warning, a line each, unless the level is above it, and stops nothing.
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
	o = call(t, map[string]string{"LOG_LEVEL": "debug"}, "--check", "--config", file, "--log-level", "error")
	assert.Equal(t, o, outcome{0, "configuration ok: " + file + "\n", ""})
}
