// Package header knows which headers concern one connection only.
package header

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
