// Package h2 is the client's side of HTTP/2 (RFC 9113) for one upstream, as an http.RoundTripper.
//
// It exists for its cost. A connection has two goroutines, however many streams it carries, and a request adds none; what
// several requests have to send at the same moment goes out in one write. net/http's client runs a goroutine per request
// and writes for each by itself, which more than doubles the CPU of a small request (docs/performance.md has the figures).
//
//	transport   connections, and which of them takes a request
//	conn        a connection's life: its settings, its writer, the PING that finds out whether the peer is still there
//	read        frames that arrive
//	request     header encoding and the body under flow control
//	stream      one exchange: waiting for its headers, reading its body
//	errors      how an exchange fails
//
// Frames and header compression are golang.org/x/net/http2's Framer and hpack. Dialing, TLS and HTTP proxies are
// http.Transport's: it hands over every connection on which the upstream chose "h2", and keeps those where it did not.
//
// A request is sent again only if the protocol proves that the upstream has not processed it, and only once: refused with
// REFUSED_STREAM, or beyond the last stream of a GOAWAY (section 8.7), or not written before the connection ended.
package h2
