package h2

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"gotest.tools/v3/assert"
)

// What becomes of a request's method, target and header.
func TestRequestHeader(t *testing.T) {
	const host = "upstream.example"
	for name, test := range map[string]struct {
		method string
		url    *url.URL
		host   string
		header http.Header
		want   string // the regular fields, but for the order of their names
		pseudo [4]string
	}{
		"plain":               {"GET", &url.URL{Path: "/"}, "", nil, "", [4]string{host, "GET", "/", "https"}},
		"host":                {"GET", &url.URL{Path: "/"}, "other.example:8443", nil, "", [4]string{"other.example:8443", "GET", "/", "https"}},
		"no path":             {"GET", &url.URL{}, "", nil, "", [4]string{host, "GET", "/", "https"}},
		"asterisk":            {"OPTIONS", &url.URL{Path: "*"}, "", nil, "", [4]string{host, "OPTIONS", "*", "https"}},
		"query":               {"GET", &url.URL{Path: "/a b", RawQuery: "x;y=%zz"}, "", nil, "", [4]string{host, "GET", "/a%20b?x;y=%zz", "https"}},
		"empty query":         {"GET", &url.URL{Path: "/", ForceQuery: true}, "", nil, "", [4]string{host, "GET", "/?", "https"}},
		"raw path":            {"GET", &url.URL{Path: "/a/b", RawPath: "/a%2Fb"}, "", nil, "", [4]string{host, "GET", "/a%2Fb", "https"}},
		"opaque":              {"GET", &url.URL{Opaque: "/{a}", RawQuery: "q"}, "", nil, "", [4]string{host, "GET", "/{a}?q", "https"}},
		"opaque with a host":  {"GET", &url.URL{Opaque: "//" + host + "//{a}"}, "", nil, "", [4]string{host, "GET", "//{a}", "https"}},
		"a method of its own": {"Brew", &url.URL{Path: "/"}, "", nil, "", [4]string{host, "Brew", "/", "https"}},

		"repeated lines":      {"GET", &url.URL{}, "", http.Header{"X-List": {"b", "a", "", "b"}}, "x-list: b, x-list: a, x-list: , x-list: b", [4]string{host, "GET", "/", "https"}},
		"space around values": {"GET", &url.URL{}, "", http.Header{"X-A": {" \ta b\t "}}, "x-a: a b", [4]string{host, "GET", "/", "https"}},
		"names as they come":  {"GET", &url.URL{}, "", http.Header{"x-LOWER_1": {"1"}}, "x-lower_1: 1", [4]string{host, "GET", "/", "https"}},
		"of one connection": {"GET", &url.URL{}, "", http.Header{"Connection": {"x"}, "Proxy-Connection": {"x"}, "Keep-Alive": {"x"}, "Te": {"x"},
			"Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Host": {"x"}, "Content-Length": {"7"}}, "", [4]string{host, "GET", "/", "https"}},
		"no user agent": {"GET", &url.URL{}, "", http.Header{"User-Agent": {""}}, "", [4]string{host, "GET", "/", "https"}},
		"user agent":    {"GET", &url.URL{}, "", http.Header{"User-Agent": {"curl/8"}}, "user-agent: curl/8", [4]string{host, "GET", "/", "https"}},
		"secrets": {"GET", &url.URL{}, "", http.Header{"Authorization": {"Bearer a"}, "X-Api-Key": nil, "Cookie": nil},
			"authorization: Bearer a (never indexed)", [4]string{host, "GET", "/", "https"}},
		"more secrets": {"GET", &url.URL{}, "", http.Header{"X-Api-Key": {"k"}}, "x-api-key: k (never indexed)", [4]string{host, "GET", "/", "https"}},
		"cookies":      {"GET", &url.URL{}, "", http.Header{"Cookie": {"a=b; c=d"}}, "cookie: a=b; c=d (never indexed)", [4]string{host, "GET", "/", "https"}},

		"DELETE has no length": {"DELETE", &url.URL{}, "", nil, "", [4]string{host, "DELETE", "/", "https"}},
		"POST has":             {"POST", &url.URL{}, "", nil, "content-length: 0", [4]string{host, "POST", "/", "https"}},
		"PUT has":              {"PUT", &url.URL{}, "", nil, "content-length: 0", [4]string{host, "PUT", "/", "https"}},
		"PATCH has":            {"PATCH", &url.URL{}, "", nil, "content-length: 0", [4]string{host, "PATCH", "/", "https"}},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				test.url.Scheme, test.url.Host = "https", host
				req := (&http.Request{Method: test.method, URL: test.url, Host: test.host, Header: test.header}).WithContext(context.Background())
				(&exchange{}).send(tr, req)
				assert.DeepEqual(t, p.take(), []string{"HEADERS 1 end"})
				var pseudo [4]string
				regular := ""
				for i, f := range p.header[1] {
					if i < 4 {
						assert.Equal(t, f.Name, []string{":authority", ":method", ":path", ":scheme"}[i])
						pseudo[i] = f.Value
						continue
					}
					if regular != "" {
						regular += ", "
					}
					regular += f.Name + ": " + f.Value
					if f.Sensitive {
						regular += " (never indexed)"
					}
				}
				assert.DeepEqual(t, pseudo, test.pseudo)
				assert.Equal(t, regular, test.want)
			})
		})
	}
}
