// Package claudecode_test runs the real Claude Code through the built binary to the stand-in. It is
// the client that the proxy is made for.
//
// Numbers in comments are rows of the behaviour contract.
package claudecode_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const token = "sk-ant-oat01-this-must-not-be-logged"

func TestClaudeCode(t *testing.T) {
	program := install(t)

	// 1.8, 1.9: if Claude Code knows that the token is an OAuth token, it sends the flag itself.
	// Its header must arrive unchanged.
	t.Run("with the flag of its own", func(t *testing.T) {
		api, proxy := start(t, "")
		out, err := run(t, program, proxy.URL, []string{"CLAUDE_CODE_OAUTH_TOKEN=" + token}, nil)
		assert.NilError(t, err, "%s", out)
		assert.Equal(t, strings.TrimSpace(out), "Hello from the stand-in.")
		request := accepted(t, api)[0]
		assert.Equal(t, len(request.Header.Values("Anthropic-Beta")), 1)
		flags := request.Flags()
		assert.Assert(t, cmp.Contains(flags, standin.OAuthFlag))
		assert.Assert(t, flags[len(flags)-1] != standin.OAuthFlag, "the proxy added a flag that was already there: %v", flags)
	})

	// 1.9: if it takes the token for a gateway's, it sends its other flags only. The proxy exists
	// for this case. A proxy that replaced the header would drop those other flags.
	t.Run("without the flag", func(t *testing.T) {
		api, proxy := start(t, "")
		out, err := run(t, program, proxy.URL, []string{"ANTHROPIC_AUTH_TOKEN=" + token}, nil)
		assert.NilError(t, err, "%s", out)
		assert.Equal(t, strings.TrimSpace(out), "Hello from the stand-in.")
		flags := accepted(t, api)[0].Flags()
		assert.Equal(t, flags[len(flags)-1], standin.OAuthFlag)
		for _, own := range []string{"claude-code-20250219", "context-management-2025-06-27"} {
			assert.Assert(t, cmp.Contains(flags, own))
		}
	})

	// One turn with a tool: the call arrives in pieces, and its result goes back in a second request.
	t.Run("a tool's round trip", func(t *testing.T) {
		api, proxy := start(t, "")
		api.Play(
			standin.Scene{Content: []standin.Block{{Text: []string{"Let me see."}}, {Tool: "Read", Input: `{"file_path":"note.txt"}`}}},
			standin.Scene{Content: []standin.Block{{Text: []string{"It says", " heron."}}}},
		)
		out, err := run(t, program, proxy.URL, []string{"ANTHROPIC_AUTH_TOKEN=" + token}, map[string]string{"note.txt": "heron\n"})
		assert.NilError(t, err, "%s", out)
		assert.Equal(t, strings.TrimSpace(out), "It says heron.")
		requests := accepted(t, api)
		assert.Equal(t, len(requests), 2)
		assert.Assert(t, cmp.Contains(string(requests[1].Body), `"tool_result"`))
		assert.Assert(t, cmp.Contains(string(requests[1].Body), "heron"))
	})

	// 2.7: when the API refuses a request, the person reads the API's own words.
	t.Run("a refusal", func(t *testing.T) {
		api, proxy := start(t, "")
		// Claude Code tries several times, with smaller and smaller bodies, before it gives up.
		api.Play(slices.Repeat([]standin.Scene{{Error: standin.NotClaudeCode()}}, 50)...)
		out, err := run(t, program, proxy.URL, []string{"ANTHROPIC_AUTH_TOKEN=" + token}, nil)
		assert.Assert(t, err != nil, "want a failure, got %s", out)
		assert.Assert(t, cmp.Contains(out, "API Error: 400 This credential is only authorized for use with Claude Code"))
	})

	// 2.4: Claude Code shows our timeout as an error. It does not try again, because the proxy already did.
	t.Run("a timeout", func(t *testing.T) {
		api, proxy := start(t, "timeout_secs = 1\nretries = 0")
		api.Play(slices.Repeat([]standin.Scene{{Hang: true}}, 50)...)
		out, err := run(t, program, proxy.URL, []string{"ANTHROPIC_AUTH_TOKEN=" + token}, nil)
		assert.Assert(t, err != nil, "want a failure, got %s", out)
		assert.Assert(t, cmp.Contains(out, "API Error: 504"))
		assert.Assert(t, cmp.Contains(out, "timeout after 1s (1 attempts)"))
		assert.Equal(t, len(api.Requests()), 1, "requests that reached the API")
	})
}

func start(t *testing.T, settings string) (*standin.Server, *binary.Process) {
	t.Helper()
	api, err := standin.Start(standin.Options{})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, api.Close()) })
	proxy := binary.Start(t, binary.Config{
		Upstream: api.URL, CAFile: api.CAFile, Proxy: settings,
		Secrets: []string{token, standin.CookieSecret},
	})
	return api, proxy
}

// accepted returns the requests for messages. Each must have been answered, and must have the flag
// exactly once.
func accepted(t *testing.T, api *standin.Server) []*standin.Request {
	t.Helper()
	var messages []*standin.Request
	for _, r := range api.Requests() {
		status, err := r.Status(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, status, 200, "%s %s with anthropic-beta %v", r.Method, r.URI, r.Flags())
		if strings.HasPrefix(r.URI, "/v1/messages?") {
			once := slices.DeleteFunc(r.Flags(), func(flag string) bool { return flag != standin.OAuthFlag })
			assert.DeepEqual(t, once, []string{standin.OAuthFlag})
			messages = append(messages, r)
		}
	}
	assert.Assert(t, len(messages) > 0, "no request for a message reached the API")
	return messages
}
