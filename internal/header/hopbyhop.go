// Package header removes headers that apply to one connection only, and parses lists in headers.
package header

import (
	"net/http"
	"net/textproto"
	"strings"
)

// HopByHop lists, in canonical form, the headers that are never forwarded (contract row 1.4): those of RFC 9110 section
// 7.6.1, and two that clients of forward proxies send. A message may name more of them in Connection.
var HopByHop = []string{
	"Connection",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Proxy-Connection",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// RemoveHopByHop removes the headers that apply to one connection only (RFC 9110 section 7.6.1). The credentials stay even if
// Connection names them (contract row 1.4).
func RemoveHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range Tokens(line) {
			if name = textproto.CanonicalMIMEHeaderKey(name); name != "Authorization" && name != "X-Api-Key" {
				delete(h, name)
			}
		}
	}
	for _, name := range HopByHop {
		delete(h, name)
	}
}

// Tokens yields the elements of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones.
func Tokens(line string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for token := range strings.SplitSeq(line, ",") {
			if token = textproto.TrimString(token); token != "" && !yield(token) {
				return
			}
		}
	}
}
