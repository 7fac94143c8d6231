package sdk_test

import (
	"testing"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// 2.7: an error of the API arrives unchanged: status, type, id, headers and text. The proxy repeats
// nothing, so the API sees only the requests that the SDK made.
func TestErrorsOfTheAPI(t *testing.T) {
	for name, tc := range map[string]struct {
		refusal *standin.Error
		kind    anthropic.ErrorType
		header  string // one that must arrive
		retried bool   // by the SDK, which is allowed one retry
	}{
		"429": {refusal: standin.RateLimited(), kind: anthropic.ErrorTypeRateLimitError, header: "Retry-After", retried: true},
		"529": {refusal: standin.Overloaded(), kind: anthropic.ErrorTypeOverloadedError, header: "X-Should-Retry", retried: true},
		"500": {refusal: &standin.Error{Status: 500, Type: "api_error", Message: "Internal server error", Header: map[string]string{"Retry-After-Ms": "1"}},
			kind: anthropic.ErrorTypeAPIError, header: "Retry-After-Ms", retried: true},
		"504 of the API": {refusal: &standin.Error{Status: 504, Type: "timeout_error", Message: "Request timed out", Header: map[string]string{"Retry-After-Ms": "1"}},
			kind: anthropic.ErrorTypeTimeoutError, header: "Retry-After-Ms", retried: true},
		"403": {refusal: &standin.Error{Status: 403, Type: "permission_error", Message: "OAuth token has been revoked.", Header: map[string]string{"X-Should-Retry": "false"}},
			kind: anthropic.ErrorTypePermissionError, header: "X-Should-Retry"},
		"400": {refusal: standin.NotClaudeCode(), kind: anthropic.ErrorTypeInvalidRequestError, header: "Cf-Cache-Status"},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, binary.Config{}, func(t *testing.T, w world) {
				w.api.Play(standin.Scene{Error: tc.refusal}, standin.Scene{Error: tc.refusal}, standin.Scene{Error: tc.refusal})
				client := w.client(t, option.WithMaxRetries(1))
				_, err := client.Messages.New(patient(t), ask(prompt))
				refused := apiError(t, err)

				want := 1
				if tc.retried {
					want = 2
				}
				requests := w.api.Requests()
				assert.Equal(t, len(requests), want, "requests that reached the API")
				last := requests[want-1]
				assert.Equal(t, refused.StatusCode, tc.refusal.Status)
				assert.Equal(t, refused.Type(), tc.kind)
				assert.Equal(t, refused.RequestID, last.ID)
				assert.Assert(t, cmp.Contains(refused.RawJSON(), tc.refusal.Message))
				assert.Assert(t, refused.Response.Header.Get(tc.header) != "", "the header %s is lost", tc.header)
				for name, value := range tc.refusal.Header {
					assert.Equal(t, refused.Response.Header.Get(name), value, name)
				}
				line := w.proxy.Finished(t, refused.Response.Header.Get("X-Proxy-Request-Id"))
				assert.Equal(t, line["status"], float64(tc.refusal.Status))
				assert.Equal(t, line["upstream_request_id"], last.ID)
			})
		})
	}
}

// 2.3, 2.4: the proxy makes its attempts, with the same bytes. The SDK then makes no further ones.
func TestTimeoutIsNotRetriedByTheSDK(t *testing.T) {
	overBoth(t, binary.Config{Proxy: "timeout_secs = 1\nretries = 1"}, func(t *testing.T, w world) {
		hang := standin.Scene{Hang: true}
		w.api.Play(hang, hang, hang, hang, hang, hang)
		client := w.client(t, option.WithMaxRetries(2))
		_, err := client.Messages.New(patient(t), ask(prompt))
		refused := apiError(t, err)
		assert.Equal(t, refused.StatusCode, 504)
		assert.Assert(t, cmp.Contains(refused.RawJSON(), "timeout after 1s (2 attempts)"))
		assert.Equal(t, refused.Type(), anthropic.ErrorType("proxy_error"))
		assert.Equal(t, refused.RequestID, refused.Response.Header.Get("X-Proxy-Request-Id"))
		assert.Equal(t, refused.Response.Header.Get("X-Should-Retry"), "false")

		requests := w.api.Requests()
		assert.Equal(t, len(requests), 2, "requests that reached the API")
		assert.Equal(t, string(requests[0].Body), string(requests[1].Body))
		assert.DeepEqual(t, requests[0].Header, requests[1].Header)
		for _, r := range requests {
			gone, err := r.Finished(patient(t))
			assert.NilError(t, err)
			assert.Assert(t, gone, "an attempt that had timed out was still running at the upstream")
		}
		assert.Equal(t, w.proxy.Finished(t, refused.RequestID)["attempts"], 2.0)
	})
}
