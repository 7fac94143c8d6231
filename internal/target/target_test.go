package target_test

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
	"gotest.tools/v3/assert"
)

// sent returns the request target that net/http would put on the wire for one it has received.
func sent(t *testing.T, upstream, requestTarget string) (string, bool) {
	up, err := url.Parse(upstream)
	assert.NilError(t, err)
	in, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + requestTarget + " HTTP/1.1\r\nHost: client\r\n\r\n")))
	if err != nil {
		return "", false
	}
	out, err := target.Join(up, in.RequestURI, in.URL)
	if err != nil {
		return "", false
	}
	var wire bytes.Buffer
	assert.NilError(t, (&http.Request{Method: "GET", URL: out, Host: out.Host}).Write(&wire), "target %q cannot be sent", requestTarget)
	line, _, _ := strings.Cut(wire.String(), " HTTP/1.1\r\n")
	return strings.TrimPrefix(line, "GET "), true
}

// FuzzJoin covers rows 1.1 and 1.2 (proxy's TestTarget has a table): whatever target net/http accepts, what is sent is the upstream's prefix and the raw path and query, byte for
// byte; in absolute-form only where a path that net/url would repair begins with two slashes. Nothing else of the
// client's target, such as its authority, gets through.
func FuzzJoin(f *testing.F) {
	for _, seed := range []string{"/", "//", "/v1/{x}?a;b", "http://u:p@h/x?y", "*", "/%2F", "//{", "/a#b", "http://h?q", "x:/y", "/{id}|^\"<>`\\", "/é", "/x?a;b&c=%zz&{}??", "HTTP://user:secret@elsewhere//x", "/100%"} {
		f.Add("", seed)
		f.Add("/pre/", seed)
	}
	f.Fuzz(func(t *testing.T, prefix, in string) {
		up, err := url.Parse("http://up" + prefix)
		if err != nil || up.Host != "up" || up.RawQuery != "" || up.ForceQuery || up.Fragment != "" || strings.Contains(prefix, "#") || strings.ContainsAny(in, " \r\n") {
			return
		}
		got, ok := sent(t, up.String(), in)
		if !ok {
			return
		}
		raw, _ := target.Raw(in)
		want := strings.TrimSuffix(up.EscapedPath(), "/") + raw
		if raw == "*" {
			want = "*"
		}
		if want == "" || want[0] == '?' {
			want = "/" + want // an empty path is sent as "/" (RFC 9112 section 3.2.1)
		}
		absolute := strings.HasPrefix(want, "//") && got == "http://up"+want
		assert.Check(t, got == want || absolute, "%q + %q: sent %q, not %q", prefix, in, got, want)
		// What arrives must be readable again as the same target.
		again, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + got + " HTTP/1.1\r\nHost: up\r\n\r\n")))
		assert.NilError(t, err, "%q + %q: sent %q", prefix, in, got)
		assert.Equal(t, again.RequestURI, got)
	})
}
