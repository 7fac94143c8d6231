package standin_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

const (
	oauth = "Bearer sk-ant-oat01-test"
	hello = `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hello"}]}`
)

// TestRefusals checks the stand-in's main purpose: it refuses what the API refuses, and nothing else.
func TestRefusals(t *testing.T) {
	s, client := start(t)
	key := http.Header{"X-Api-Key": {"sk-ant-api03-test"}}
	field := hello[:len(hello)-1] + `,"context_management":{}}`
	for _, tc := range []struct {
		name    string
		path    string
		header  http.Header
		body    string
		status  int
		message string // a part of it
	}{
		{"OAuth token with its flag", "/v1/messages", flags("oauth-2025-04-20"), hello, 200, ""},
		{"flags on several lines", "/v1/messages", flags("skills-2025-10-02, context-management-2025-06-27", "oauth-2025-04-20"), field, 200, ""},
		{"API key without a flag", "/v1/messages", key, hello, 200, ""},
		{"OAuth token without its flag", "/v1/messages", flags(), hello, 401, "OAuth authentication is currently not supported."},
		{"OAuth token with another flag", "/v1/messages", flags("skills-2025-10-02"), hello, 401, "OAuth"},
		{"no credential", "/v1/messages", http.Header{}, hello, 401, "x-api-key header is required"},
		{"a flag twice", "/v1/messages", flags("skills-2025-10-02,oauth-2025-04-20", "oauth-2025-04-20"), hello, 400, "`oauth-2025-04-20`"},
		{"an unknown flag", "/v1/messages", flags("oauth-2025-04-20,no-such-flag"), hello, 400, "Unexpected value(s) `no-such-flag`"},
		{"an empty flag", "/v1/messages", flags("oauth-2025-04-20,"), hello, 400, "Unexpected value(s) ``"},
		{"a beta's field without its flag", "/v1/messages", flags("oauth-2025-04-20"), field, 400, "context_management: Extra inputs"},
		{"a body cut short", "/v1/messages", flags("oauth-2025-04-20"), hello[:len(hello)-5], 400, "not valid JSON"},
		{"a path with two slashes", "//v1/messages", flags("oauth-2025-04-20"), hello, 404, "Not found"},
		{"too large", "/v1/messages", flags("oauth-2025-04-20"), strings.Repeat(" ", 32<<20) + hello, 413, "maximum size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := post(t, client, s.URL+tc.path, tc.header, tc.body)
			assert.Equal(t, resp.StatusCode, tc.status, "%s", body)
			assert.Assert(t, cmp.Contains(string(body), tc.message))
		})
	}
}

func start(t *testing.T) (*standin.Server, *http.Client) {
	t.Helper()
	s, err := standin.Start(standin.Options{})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, s.Close()) })
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return s, &http.Client{Transport: transport}
}

// flags returns the headers of a valid request with these anthropic-beta lines.
func flags(lines ...string) http.Header {
	return http.Header{"Authorization": {oauth}, "Anthropic-Beta": lines}
}

func post(t *testing.T, client *http.Client, url string, header http.Header, body string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	assert.NilError(t, err)
	req.Header = header
	if header.Get("Anthropic-Version") == "" {
		header.Set("Anthropic-Version", "2023-06-01")
	}
	resp, err := client.Do(req)
	assert.NilError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	return resp, answer
}
