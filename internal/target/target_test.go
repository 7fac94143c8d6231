package target_test

import (
	"bufio"
	"bytes"
	"io"
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
	if err := (&http.Request{Method: "GET", URL: out, Host: out.Host}).Write(&wire); err != nil {
		t.Fatalf("target %q cannot be sent: %v", requestTarget, err)
	}
	line, _, _ := strings.Cut(wire.String(), " HTTP/1.1\r\n")
	return strings.TrimPrefix(line, "GET "), true
}

// Rows 1.1 and 1.2: path and query exactly as received, after the upstream's prefix less one slash.
func TestJoin(t *testing.T) {
	for _, tc := range []struct{ upstream, in, want string }{
		{"http://up", "/v1/messages?beta=true", "/v1/messages?beta=true"},
		{"http://up/", "/v1/messages", "/v1/messages"},
		{"http://up//", "/v1", "//v1"},
		{"http://up/pre/fix/", "//v1//x", "/pre/fix//v1//x"},
		{"http://up/a%2Fb", "/c%2Fd", "/a%2Fb/c%2Fd"},
		{"http://up", "//v1/messages", "//v1/messages"},
		{"http://up", "/a%2Fb/../c;d=e/./f", "/a%2Fb/../c;d=e/./f"},
		{"http://up", "/{id}|^\"<>`\\", "/{id}|^\"<>`\\"},
		{"http://up/pre", "//{id}", "/pre//{id}"},
		{"http://up", "/é", "/é"},
		{"http://up", "/x#y?z#w", "/x#y?z#w"},
		{"http://up", "/x?", "/x?"},
		{"http://up", "/x?a;b&c=%zz&{}??", "/x?a;b&c=%zz&{}??"},
		{"http://up", "http://elsewhere/x?y", "/x?y"},
		{"http://up", "HTTP://user:secret@elsewhere//x", "//x"},
		{"http://up/pre", "http://elsewhere?y", "/pre?y"},
		{"http://up", "http://elsewhere", "/"},
		{"http://up/pre", "*", "*"},
	} {
		got, ok := sent(t, tc.upstream, tc.in)
		assert.Assert(t, ok, "%s", tc.in)
		assert.Equal(t, got, tc.want, "%s + %s", tc.upstream, tc.in)
	}
	for _, in := range []string{"/100%", "mailto:x", "foo"} {
		_, ok := sent(t, "http://up", in)
		assert.Assert(t, !ok, "%s must be refused", in)
	}
}

func TestPath(t *testing.T) {
	for in, want := range map[string]string{
		"/health?x": "/health", "/%68ealth": "/%68ealth", "//health": "//health", "http://any/health": "/health",
		"http://any": "", "*": "*", "host:443": "", "": "", "?/health": "",
	} {
		assert.Equal(t, target.Path(in), want, "%q", in)
	}
}

// FuzzJoin: whatever target net/http accepts, what is sent is the upstream's prefix and the raw path and query, byte for
// byte; in absolute-form only where a path that net/url would repair begins with two slashes. Nothing else of the
// client's target, such as its authority, gets through.
func FuzzJoin(f *testing.F) {
	for _, seed := range []string{"/", "//", "/v1/{x}?a;b", "http://u:p@h/x?y", "*", "/%2F", "//{", "/a#b", "http://h?q", "x:/y"} {
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
		if got != want && got != "http://up"+want {
			t.Errorf("%q + %q: sent %q, want %q", prefix, in, got, want)
		}
		if got != want && !(strings.HasPrefix(want, "//")) {
			t.Errorf("%q + %q: sent in absolute-form without need: %q", prefix, in, got)
		}
		// What arrives must be readable again as the same target.
		again, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("GET " + got + " HTTP/1.1\r\nHost: up\r\n\r\n"))))
		if err != nil || again.RequestURI != got {
			t.Errorf("%q + %q: sent %q, which reads as %v (%v)", prefix, in, got, again, err)
		}
	})
}
