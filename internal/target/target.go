// Package target keeps a request's target exactly as it was received.
//
// net/http gives a handler a parsed URL. Printing that URL would change unusual characters: `{` becomes %7B, and a lone `?` may get
// lost. A proxy must not change them. So path and query are forwarded as the raw text of the request line (contract rows 1.1 and 1.2).
// Routing uses the same raw text.
package target

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
)

// Raw returns the path and query of a request target as they are in the request line. It returns origin-form and asterisk-form (RFC
// 9112 section 3.2) unchanged. Of absolute-form it returns only what follows the authority, so the client's host and userinfo are not
// forwarded. The path may be empty. ok is false for a target without a path, such as the authority-form of CONNECT or "mailto:x".
func Raw(requestURI string) (raw string, ok bool) {
	if strings.HasPrefix(requestURI, "/") || requestURI == "*" {
		return requestURI, true
	}
	_, rest, found := strings.Cut(requestURI, ":")
	if !found {
		return "", false
	}
	if authority, isAbsolute := strings.CutPrefix(rest, "//"); isAbsolute {
		if i := strings.IndexAny(authority, "/?"); i >= 0 {
			return authority[i:], true
		}
		return "", true
	}
	if strings.HasPrefix(rest, "/") {
		return rest, true
	}
	return "", false
}

// Path returns the path of a request target as it is in the request line, without the query. It is "" if Raw finds none.
func Path(requestURI string) string {
	raw, _ := Raw(requestURI)
	path, _, _ := strings.Cut(raw, "?")
	return path
}

// Port returns the port of an http or https URL, or the scheme's default.
func Port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// Join returns the URL at the upstream for a request target: the upstream's URL without one trailing slash, followed by the
// raw path and query. net/http sends its RequestURI byte for byte. in is the same target, parsed by net/http.
func Join(upstream *url.URL, requestURI string, in *url.URL) (*url.URL, error) {
	raw, ok := Raw(requestURI)
	if !ok {
		return nil, fmt.Errorf("the request target has no path")
	}
	out := &url.URL{Scheme: upstream.Scheme, Host: upstream.Host}
	if raw == "*" { // asterisk-form means the whole server, so it gets no prefix
		out.Path = "*"
		return out, nil
	}
	path, query, hasQuery := strings.Cut(raw, "?")
	path = strings.TrimSuffix(upstream.EscapedPath(), "/") + path
	out.Path = strings.TrimSuffix(upstream.Path, "/") + in.Path
	out.RawPath = path
	out.RawQuery = query
	out.ForceQuery = hasQuery && query == ""
	if path != "" && out.EscapedPath() != path {
		// net/url would escape this path in its own way. It leaves Opaque unchanged.
		out.Opaque = path
		if strings.HasPrefix(path, "//") { // an Opaque of this form must name its host
			out.Opaque = "//" + out.Host + path
		}
	}
	return out, nil
}
