package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// warnings decodes the warnings of a configuration that is all right.
func warnings(t *testing.T, o outcome) (texts []string) {
	t.Helper()
	assert.Equal(t, o.code, 0, o.stderr)
	for _, line := range o.lines() {
		var e struct{ Level, Msg string }
		assert.NilError(t, json.Unmarshal([]byte(line), &e), line)
		assert.Equal(t, e.Level, "WARN")
		texts = append(texts, e.Msg)
	}
	return texts
}

// Contract section 7, R8: what is left over from the sidecar days draws one warning, which says that it may be deleted,
// in whatever form it stands there; nothing in it is looked at.
func TestTailscaleSectionWarns(t *testing.T) {
	for name, lines := range map[string][]string{
		"section":    {`[proxy]`, `retries = 1`, `[tailscale]`, `hostname = "x"`, `auth_key = "tskey-secret"`, `auth_key_file = "/x"`, `state_dir = 3`},
		"empty":      {`[tailscale]`},
		"subsection": {`[tailscale.state]`, `dir = "x"`, `[tailscale.more]`, `x = 1`},
		"dotted":     {`tailscale.hostname = "x"`, `tailscale.auth_key = "tskey-secret"`},
		"inline":     {`tailscale = {hostname = "x", auth_key = "tskey-secret"}`},
		"scattered":  {`[tailscale]`, `a = 1`, `[proxy]`, `retries = 1`, `[tailscale.more]`, `b = 2`},
	} {
		t.Run(name, func(t *testing.T) {
			texts := warnings(t, check(t, lines...))
			assert.Equal(t, len(texts), 1, "%q", texts)
			text := texts[0]
			assert.Check(t, strings.HasPrefix(text, "FILE:") && strings.Contains(text, "tailscale") && strings.Contains(text, "ignored") &&
				strings.Contains(text, "may be deleted") && !strings.Contains(text, "secret"), text)
		})
	}
}

// Contract section 7: the environment variable likewise.
func TestTailscaleSocketWarns(t *testing.T) {
	t.Chdir(t.TempDir())
	env := map[string]string{"TAILSCALE_SOCKET": "/var/run/tailscale/tailscaled.sock"}
	texts := warnings(t, call(t, env, "--check"))
	assert.Equal(t, len(texts), 1, "%q", texts)
	assert.Check(t, strings.Contains(texts[0], "TAILSCALE_SOCKET") && strings.Contains(texts[0], "ignored") && strings.Contains(texts[0], "may be deleted"), texts[0])
}

// Contract section 7, R5 and R8: with both of them the program serves like without.
func TestSidecarConfigurationServes(t *testing.T) {
	t.Parallel()
	p := startEnv(t, []string{"TAILSCALE_SOCKET=/nowhere"}, newUpstream(t, echo), "[tailscale]", `hostname = "x"`)
	resp, body := get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, body, "upstream saw /v1")
	resp, _ = get(t, p.url("/health"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
}

// Contract section 7: an http:// upstream draws a warning, unless it is this machine.
func TestClearTextUpstreamWarns(t *testing.T) {
	t.Chdir(t.TempDir())
	for url, warns := range map[string]bool{
		"http://gateway.example":       true,
		"HTTP://gateway.example":       true,
		"http://192.168.1.2:8080":      true,
		"http://localhost.example":     true,
		"http://127.0.0.1.example":     true,
		"http://[2001:db8::1]:80/path": true,
		"https://gateway.example":      false,
		"http://localhost:8080":        false,
		"http://127.0.0.1:8080":        false,
		"http://127.1.2.3":             false,
		"http://[::1]:8080":            false,
	} {
		texts := warnings(t, call(t, nil, "--check", "--upstream", url))
		if !warns {
			assert.Check(t, len(texts) == 0, "%s: %q", url, texts)
			continue
		}
		assert.Check(t, len(texts) == 1 && strings.Contains(texts[0], "clear"), "%s: %q", url, texts)
	}
}

// Contract row 1.9: a rule that replaces anthropic-beta, as the replaced service's files have it, breaks Claude Code; it
// works as it says, with a warning.
func TestReplacingBetaFlagsWarns(t *testing.T) {
	texts := warnings(t, check(t, "[[headers]]", `name = "Anthropic-Beta"`, `value = "oauth-2025-04-20"`))
	assert.Equal(t, len(texts), 1, "%q", texts)
	assert.Check(t, strings.Contains(texts[0], `mode = "add"`), texts[0])
}
