// Package upstream sends one request to the upstream and brings back its response, or an honest error. This is the
// contract of its timeouts and retries; the numbers in brackets are rows of docs/contract.md.
//
// Connecting (name, TCP, TLS, HTTP/2's first SETTINGS) may take 10 s [2.1]. An attempt has HeaderTimeout from its start to
// the response headers [2.2]. A response that has begun may take for ever, but the upstream may not be silent for longer
// than IdleTimeout [3.2, 3.3]. A peer that vanished without a word is noticed after 45 s, whatever the timeouts are [2.5].
// All of these are a Timeout if the headers have not come, each naming its own limit, and only a Timeout is repeated: up to
// Options.Retries times, 100 ms apart, with the same bytes [2.3]. A Connection error, that is everything else that brings no
// response, is final [2.6].
//
// What became of an attempt that brought no response is one fact, its Fate: nothing of the request was sent, or the upstream
// may have read it. What the log, the metrics and the client are told of a retry or a failure follows from it [2.3, 2.4].
//
// The layers, each a file:
//
//	retry       repeats attempts that timed out
//	attempt     runs the timers, knows the fate, and ends the attempt's context when the response's body is closed
//	resend      sends again, within an attempt, what was provably not processed, and keeps net/http from sending more
//	transport   net/http's client for both protocols, and how it connects
//	conn        a connection that can tell what was written on it, and whether an HTTP/2 peer has spoken; dial_* its options
//	clock       notices that the machine slept
//	errors      what an error means, in words that quote nothing; nethttp has the texts by which net/http's are told apart
//
// HTTP/2 or HTTP/1.1 is the upstream's choice in the TLS handshake. The API's is HTTP/2, which is better for what goes wrong:
// it says which requests it has not processed, a PING asks the upstream itself whether it is alive, and events arrive as
// frames. The price is a shared fate: if a connection dies, so do the streams on it.
package upstream
