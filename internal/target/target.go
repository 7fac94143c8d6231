// Package target keeps a request's target exactly as it was received.
//
// net/http hands a handler a parsed URL; printing that URL again would repair what it finds odd (`{` becomes %7B, a lone
// `?` survives only by luck). An API gateway has no business repairing, so the path and the query travel as the raw text
// of the request line (contract rows 1.1 and 1.2), and routing looks at the same raw text.
package target

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
)

// Raw returns the path and query of a request target as they stand in the request line. origin-form and asterisk-form
// (RFC 9112 section 3.2) come back unchanged; of absolute-form only what follows the authority is left, so neither the
// host nor the userinfo a client put there goes any further. The path may be empty. ok is false for a target that has
// no path at all, such as the authority-form of CONNECT or "mailto:x".
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

// Path returns the path of a request target as it stands in the request line, without the query; "" where Raw finds none.
func Path(requestURI string) string {
	raw, _ := Raw(requestURI)
	path, _, _ := strings.Cut(raw, "?")
	return path
}

// Port returns the port of an http or https URL, written out or not.
func Port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// Join returns the URL at the upstream for a request target: the upstream's URL less one trailing slash, and then the
// raw path and query. net/http sends its RequestURI byte for byte. in is the same target as net/http parsed it.
func Join(upstream *url.URL, requestURI string, in *url.URL) (*url.URL, error) {
	raw, ok := Raw(requestURI)
	if !ok {
		return nil, fmt.Errorf("the request target has no path")
	}
	out := &url.URL{Scheme: upstream.Scheme, Host: upstream.Host}
	if raw == "*" { // asterisk-form speaks of the server as a whole, so no prefix
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
		// net/url would escape this path its own way; as Opaque it is left alone.
		out.Opaque = path
		if strings.HasPrefix(path, "//") { // an Opaque of this form must name its host
			out.Opaque = "//" + out.Host + path
		}
	}
	return out, nil
}
