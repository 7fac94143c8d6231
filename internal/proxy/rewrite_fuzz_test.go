package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/internal/header"
	"gotest.tools/v3/assert"
)

// FuzzRules sends a header section through the header rules and states what must hold for every one:
// what is protected never changes (row 1.6), what is hop-by-hop or speaks of the tailnet never passes (rows 1.4, 1.5),
// after "add" each token of the rule is there once more only if it was missing, the client's tokens keep their order
// and spelling, and lines with nothing missing stay byte for byte (row 1.8); after "set" the value is the rule's (1.7).
func FuzzRules(f *testing.F) {
	f.Add("anthropic-beta", "a, b", "c", "oauth-2025-04-20", "authorization, x-api-key, x-a", true)
	f.Add("anthropic-beta", "oauth-2025-04-20,a", "", "oauth-2025-04-20, b", "anthropic-beta", true)
	f.Add("X-A", " ,, a ,", "a", "a,a,b", "", true)
	f.Add("X-A", "a", " ", "a", "", true)
	f.Add("x-thing", "old", "older", "new", "close, te", false)
	f.Fuzz(func(t *testing.T, name, line1, line2, value, connection string, add bool) {
		canonical := http.CanonicalHeaderKey(name)
		protected := canonical == "Authorization" || canonical == "X-Api-Key"
		if name == "" || protected || isLocal(canonical) || canonical == "Connection" || canonical == "Expect" || strings.ContainsAny(name, ",; \t\r\n:") {
			return
		}
		rule := Rule{Name: name, Value: value, Add: add}
		in := http.Header{
			canonical:           {line1, line2},
			"Authorization":     {"Bearer one", "Bearer two"},
			"X-Api-Key":         {"key"},
			"Connection":        {connection},
			"Te":                {"trailers"},
			"Upgrade":           {"websocket"},
			"X-Forwarded-Proto": {"https"}, "X-Forwarded-Whatever": {"x"}, "Forwarded": {"for=a"}, "X-Real-Ip": {"100.64.0.1"},
			"Tailscale-User-Login": {"someone"},
			"Expect":               {"100-continue"},
		}
		if hop := in.Values("Connection"); len(hop) != 1 || slices.Contains(header.HopByHop, canonical) {
			return
		}
		out := through(t, rule, in.Clone())

		assert.DeepEqual(t, out["Authorization"], in["Authorization"])
		assert.DeepEqual(t, out["X-Api-Key"], in["X-Api-Key"])
		for k := range out {
			forbidden := isLocal(k) || slices.Contains(header.HopByHop, k) || k == "Expect"
			assert.Check(t, k == canonical || !forbidden, "%s passed", k)
		}
		got := out[canonical]
		if !add {
			assert.DeepEqual(t, got, []string{value})
			return
		}
		before := []string{textproto.TrimString(line1), textproto.TrimString(line2)} // net/http leaves white space where a folded line ended
		for listed := range header.Tokens(connection) {
			if http.CanonicalHeaderKey(listed) == canonical {
				before = nil // the client asked for it to be removed
			}
		}
		want := all(before)
		for token := range header.Tokens(value) {
			if !slices.Contains(want, token) {
				want = append(want, token)
			}
		}
		assert.DeepEqual(t, all(got), want)
		if len(want) == len(all(before)) {
			assert.Check(t, slices.Equal(got, before), "nothing was missing, yet %q became %q", before, got)
		}
	})
}

func all(lines []string) (list []string) {
	for _, line := range lines {
		for token := range header.Tokens(line) {
			list = append(list, token)
		}
	}
	return list
}

// through returns the header that the upstream would get.
func through(t *testing.T, rule Rule, header http.Header) (out http.Header) {
	up := &url.URL{Scheme: "http", Host: "up"}
	p := &proxy{Options: Options{Upstream: up, Rules: []Rule{rule}}}
	r := httptest.NewRequest("GET", "/x", nil)
	r.Header = header
	x := newExchange(r)
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	p.locate(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { out = p.rewrite(r).Header })).ServeHTTP(httptest.NewRecorder(), r)
	assert.Assert(t, out != nil, "the request did not get through")
	return out
}
