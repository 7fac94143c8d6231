// Package sdk_test runs the official Go SDK through the built binary to a stand-in that is as
// strict as the API. The SDK must see the same as without the proxy.
//
// Numbers in comments are rows of the behaviour contract.
package sdk_test

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	token = "sk-ant-oat01-this-must-not-be-logged"
	model = anthropic.Model("claude-sonnet-5-5")

	// prompt is in every body and must not appear in a log.
	prompt = "a question that is nobody else's business"
)

// world is the whole path: SDK, proxy, API.
type world struct {
	api   *standin.Server
	proxy *binary.Process
}

// overBoth runs a test twice: with an API that offers HTTP/2, as the original does, and with one that
// speaks only HTTP/1.1.
func overBoth(t *testing.T, config binary.Config, test func(t *testing.T, w world)) {
	for name, options := range map[string]standin.Options{"HTTP2": {}, "HTTP1": {HTTP1: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, options, config))
		})
	}
}

func start(t *testing.T, options standin.Options, config binary.Config) world {
	t.Helper()
	api, err := standin.Start(options)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, api.Close()) })
	config.Upstream, config.CAFile = api.URL, api.CAFile
	config.Secrets = []string{token, prompt, standin.CookieSecret}
	w := world{api: api, proxy: binary.Start(t, config)}
	t.Cleanup(func() {
		if requests := api.Requests(); len(requests) > 0 {
			t.Logf("between proxy and API: %s", requests[0].Proto)
		}
	})
	return w
}

// client returns an SDK client that knows only the proxy's address and its own OAuth token.
func (w world) client(t *testing.T, more ...option.RequestOption) anthropic.Client {
	return newClient(t, w.proxy.URL, nil, more...)
}

func newClient(t *testing.T, url string, transport *http.Transport, more ...option.RequestOption) anthropic.Client {
	if transport == nil {
		transport = &http.Transport{}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return anthropic.NewClient(append([]option.RequestOption{
		option.WithoutEnvironmentDefaults(),
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithBaseURL(url),
		option.WithAuthToken(token),
	}, more...)...)
}

func ask(text string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{
		Model:     model,
		MaxTokens: 64,
		Messages:  []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(text))},
	}
}

// patient limits what should happen at once, so that a test fails instead of hanging.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// received returns the only request that reached the API.
func (w world) received(t *testing.T) *standin.Request {
	t.Helper()
	requests := w.api.Requests()
	assert.Equal(t, len(requests), 1, "requests that reached the API")
	return requests[0]
}
