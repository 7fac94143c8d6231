// Package upstream sends one request to the upstream and returns its response, or an error that says what happened. This
// comment is the contract of its timeouts and retries; the numbers in brackets are rows of docs/contract.md.
//
// The name lookup and the TCP connection may take 30 s together, the TLS handshake 10 s [2.1]. An attempt has HeaderTimeout
// from its start to the response headers [2.2]. A response may take hours, but the upstream may not be silent for longer than
// IdleTimeout [3.2, 3.3]. Over HTTP/2, a PING that is not answered ends the connection after 45 s of silence [2.5].
//
// Each of these is a Timeout if no headers have come, and a Timeout is retried: up to Options.Retries times, 100 ms apart, with
// the same bytes [2.3]. Any other error that brings no response is final [2.6]. There is one exception: a request that the
// upstream provably did not process is sent again at once, and that does not count as an attempt [2.6].
//
// An attempt without a response is of one of two kinds: nothing of the request was sent, or the upstream may have read it. The
// log, the metrics and the client's answer all follow from that [2.3, 2.4].
//
// The layers, each a file:
//
//	retry      the loop that sends a request again
//	attempt    one attempt and its timer, until the response headers
//	idle       ends a response whose upstream falls silent
//	transport  net/http's client for both protocols, and its settings
//	sleep      notices that the machine slept
//	errors     what an error means, in texts that quote nothing
//	errortext  the texts by which some of net/http's errors are recognized
//
// The upstream chooses HTTP/2 or HTTP/1.1 in the TLS handshake. The API chooses HTTP/2. With HTTP/2 the upstream says which
// requests it did not process, a PING asks whether it is alive, and events arrive as frames. In return, all streams on a
// connection end with it.
package upstream
