package standin_test

import (
	"crypto/tls"
	"encoding/json"
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

// TestRefusals checks the stand-in's main purpose: it refuses what the API refuses.
func TestRefusals(t *testing.T) {
	s, client := start(t)
	for _, tc := range []struct {
		name    string
		path    string
		header  http.Header
		body    string
		status  int
		kind    string
		message string // a part of it
	}{
		{name: "OAuth token without its flag", header: http.Header{"Authorization": {oauth}},
			status: 401, kind: "authentication_error", message: "OAuth authentication is currently not supported."},
		{name: "OAuth token with another flag", header: http.Header{"Authorization": {oauth}, "Anthropic-Beta": {"skills-2025-10-02"}},
			status: 401, kind: "authentication_error", message: "OAuth"},
		{name: "no credential", header: http.Header{}, status: 401, kind: "authentication_error", message: "x-api-key header is required"},
		{name: "not a token", header: http.Header{"Authorization": {"Bearer nonsense"}}, status: 401, kind: "authentication_error", message: "Invalid bearer token"},
		{name: "not a key", header: http.Header{"X-Api-Key": {"nonsense"}}, status: 401, kind: "authentication_error", message: "invalid x-api-key"},
		{name: "a flag twice on one line", header: flags("oauth-2025-04-20, oauth-2025-04-20"),
			status: 400, kind: "invalid_request_error", message: "`oauth-2025-04-20`"},
		{name: "a flag twice on two lines", header: flags("oauth-2025-04-20", "skills-2025-10-02,oauth-2025-04-20"),
			status: 400, kind: "invalid_request_error", message: "`oauth-2025-04-20`"},
		{name: "an unknown flag", header: flags("oauth-2025-04-20,no-such-flag"),
			status: 400, kind: "invalid_request_error", message: "Unexpected value(s) `no-such-flag` for the `anthropic-beta` header."},
		{name: "an empty flag", header: flags("oauth-2025-04-20,"), status: 400, kind: "invalid_request_error", message: "Unexpected value(s) ``"},
		{name: "a beta's field without its flag", header: flags("oauth-2025-04-20"), body: hello[:len(hello)-1] + `,"context_management":{}}`,
			status: 400, kind: "invalid_request_error", message: "context_management: Extra inputs are not permitted"},
		{name: "a version that does not exist", header: http.Header{"Authorization": {oauth}, "Anthropic-Beta": {"oauth-2025-04-20"}, "Anthropic-Version": {"1"}},
			status: 400, kind: "invalid_request_error", message: `anthropic-version: "1" is not a valid version`},
		{name: "a missing field", header: flags("oauth-2025-04-20"), body: `{"model":"m","messages":[{"role":"user","content":"x"}]}`,
			status: 400, kind: "invalid_request_error", message: "max_tokens: Field required"},
		{name: "a body cut short", header: flags("oauth-2025-04-20"), body: hello[:len(hello)-5], status: 400, kind: "invalid_request_error", message: "not valid JSON"},
		{name: "a version twice", header: http.Header{"Authorization": {oauth}, "Anthropic-Beta": {"oauth-2025-04-20"}, "Anthropic-Version": {"2023-06-01", "2023-06-01"}},
			status: 400, kind: "invalid_request_error", message: `anthropic-version: "2023-06-01, 2023-06-01" is not a valid version`},
		{name: "a path with two slashes", path: "//v1/messages", header: flags("oauth-2025-04-20"), status: 404, kind: "not_found_error", message: "Not found"},
		{name: "too large", header: flags("oauth-2025-04-20"), body: strings.Repeat(" ", 32<<20) + hello, status: 413, kind: "request_too_large", message: "maximum size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.path == "" {
				tc.path = "/v1/messages"
			}
			if tc.body == "" {
				tc.body = hello
			}
			resp, body := post(t, client, s.URL+tc.path, tc.header, tc.body)
			var answer struct {
				Type      string
				Error     struct{ Type, Message string }
				RequestID string `json:"request_id"`
			}
			assert.NilError(t, json.Unmarshal(body, &answer), "%s", body)
			assert.Equal(t, resp.StatusCode, tc.status, "%s", body)
			assert.Equal(t, answer.Type, "error")
			assert.Equal(t, answer.Error.Type, tc.kind)
			assert.Assert(t, cmp.Contains(answer.Error.Message, tc.message))
			assert.Equal(t, answer.RequestID, resp.Header.Get("Request-Id"))
		})
	}
}

func TestAccepts(t *testing.T) {
	s, client := start(t)
	for _, tc := range []struct {
		name   string
		header http.Header
		body   string
	}{
		{"an OAuth token with its flag", flags("oauth-2025-04-20"), hello},
		{"flags on several lines", flags("skills-2025-10-02, context-management-2025-06-27", "oauth-2025-04-20"), hello[:len(hello)-1] + `,"context_management":{}}`},
		{"an API key without a flag", http.Header{"X-Api-Key": {"sk-ant-api03-test"}}, hello},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := post(t, client, s.URL+"/v1/messages", tc.header, tc.body)
			assert.Equal(t, resp.StatusCode, 200, "%s", body)
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
