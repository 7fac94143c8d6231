package sdk_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// 1.9, 2.7, 3.6, 8: a request with an OAuth token but without the flag is answered. The client can
// read all ids of the request and find them in the log.
func TestMessage(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		client := w.client(t)
		var response *http.Response
		message, err := client.Messages.New(patient(t), ask(prompt), option.WithResponseInto(&response))
		assert.NilError(t, err)
		assert.Equal(t, message.Content[0].Text, "Hello from the stand-in.")
		assert.Equal(t, message.StopReason, anthropic.StopReasonEndTurn)

		request := w.received(t)
		assert.DeepEqual(t, request.Header.Values("Anthropic-Beta"), []string{standin.OAuthFlag})
		assert.Equal(t, request.Header.Get("Authorization"), "Bearer "+token)

		h := response.Header
		assert.Equal(t, h.Get("Request-Id"), request.ID)
		assert.Assert(t, cmp.Regexp(`^req_[0-9a-f]{32,}$`, h.Get("X-Proxy-Request-Id")))
		for _, name := range []string{"5h-Utilization", "5h-Reset", "5h-Status", "7d-Utilization", "7d-Reset", "7d-Status", "Status"} {
			assert.Assert(t, h.Get("Anthropic-Ratelimit-Unified-"+name) != "", "the header …-unified-%s is lost", name)
		}
		line := w.proxy.Finished(t, h.Get("X-Proxy-Request-Id"))
		assert.Equal(t, line["upstream_request_id"], request.ID)
		assert.Equal(t, line["status"], 200.0)
		assert.Equal(t, line["path"], "/v1/messages")
		assert.Equal(t, line["attempts"], 1.0)
		assert.Equal(t, line["outcome"], "complete")
	})
}

// 1.1, 1.3, 1.5, 1.10, 1.14: apart from the one flag, the API receives the same bytes as without the
// proxy. The body has several megabytes. The test runs with and without compressed answers.
func TestProxyAddsOneFlagAndNothingElse(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		params := ask(strings.Repeat(prompt+" é \" \u2028 ", 100_000))
		custom := []option.RequestOption{
			option.WithHeader("X-Claude-Code-Session-Id", "7f3c"),
			option.WithHeaderAdd("X-Twice", "a"), option.WithHeaderAdd("X-Twice", "b, c"),
			option.WithQuery("odd", "a;b=%2F//"),
		}
		for _, compressed := range []bool{true, false} {
			before := len(w.api.Requests())
			through := newClient(t, w.proxy.URL, &http.Transport{DisableCompression: !compressed})
			transport := trusting(t, w.api)
			transport.DisableCompression = !compressed
			direct := newClient(t, w.api.URL, transport, option.WithHeader("anthropic-beta", standin.OAuthFlag))

			var response *http.Response
			_, err := through.Messages.New(patient(t), params, append(custom, option.WithResponseInto(&response))...)
			assert.NilError(t, err)
			assert.Equal(t, response.Uncompressed, compressed, "whether the SDK had to decompress the answer")
			_, err = direct.Messages.New(patient(t), params, custom...)
			assert.NilError(t, err)

			requests := w.api.Requests()[before:]
			assert.Equal(t, len(requests), 2)
			proxied, plain := requests[0], requests[1]
			assert.DeepEqual(t, proxied.Header, plain.Header)
			assert.Equal(t, proxied.URI, plain.URI)
			assert.Equal(t, proxied.Host, plain.Host)
			assert.Assert(t, string(proxied.Body) == string(plain.Body), "the body of %d bytes is %d bytes long behind the proxy, or changed", len(plain.Body), len(proxied.Body))
			assert.Assert(t, len(plain.Body) > 4<<20, "the body is not large enough for the test: %d", len(plain.Body))
		}
	})
}

// 1.8, 1.9: the client's own flags stay in order. The OAuth flag is there exactly once, whoever sent it.
func TestFlagsOfTheClient(t *testing.T) {
	const mine, other = "context-management-2025-06-27", "interleaved-thinking-2025-05-14"
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		client := w.client(t)
		for _, tc := range []struct {
			name  string
			betas []anthropic.AnthropicBeta
			lines []string // additional anthropic-beta lines
			want  []string // the lines that arrive
			flags []string // or the tokens, if a line had to be changed
		}{
			{name: "none of ours", betas: []anthropic.AnthropicBeta{mine, other}, flags: []string{mine, other, standin.OAuthFlag}},
			{name: "ours among them", betas: []anthropic.AnthropicBeta{mine, standin.OAuthFlag, other},
				want: []string{mine + "," + standin.OAuthFlag + "," + other}},
			{name: "ours on a line of its own", lines: []string{mine + " , " + other, standin.OAuthFlag},
				want: []string{mine + " , " + other, standin.OAuthFlag}},
			{name: "two lines without ours", lines: []string{mine, other}, flags: []string{mine, other, standin.OAuthFlag}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				before := len(w.api.Requests())
				var options []option.RequestOption
				for _, line := range tc.lines {
					options = append(options, option.WithHeaderAdd("anthropic-beta", line))
				}
				_, err := client.Beta.Messages.New(patient(t), withContextManagement(tc.betas), options...)
				assert.NilError(t, err)
				requests := w.api.Requests()[before:]
				assert.Equal(t, len(requests), 1)
				if tc.want != nil {
					assert.DeepEqual(t, requests[0].Header.Values("Anthropic-Beta"), tc.want)
				} else {
					assert.DeepEqual(t, requests[0].Flags(), tc.flags)
				}
			})
		}
	})
}

func withContextManagement(betas []anthropic.AnthropicBeta) anthropic.BetaMessageNewParams {
	return anthropic.BetaMessageNewParams{
		Model:     model,
		MaxTokens: 64,
		Messages:  []anthropic.BetaMessageParam{anthropic.NewBetaUserMessage(anthropic.NewBetaTextBlock(prompt))},
		Betas:     betas,
		ContextManagement: anthropic.BetaContextManagementConfigParam{
			Edits: []anthropic.BetaContextManagementConfigEditUnionParam{{OfClearToolUses20250919: &anthropic.BetaClearToolUses20250919EditParam{}}},
		},
	}
}

// trusting returns the transport of a client that talks to the API without the proxy, over the
// protocol that the API offers.
func trusting(t *testing.T, api *standin.Server) *http.Transport {
	t.Helper()
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: api.CA.Pool()}, ForceAttemptHTTP2: true}
}

func apiError(t *testing.T, err error) *anthropic.Error {
	t.Helper()
	var refused *anthropic.Error
	assert.Assert(t, errors.As(err, &refused), "want an error that the SDK could read, got %T: %v", err, err)
	return refused
}
