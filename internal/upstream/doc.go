// Package upstream sends one request to the upstream and brings back its response, or an honest error. This is the
// contract of its timeouts and retries; the numbers in brackets are rows of the behaviour contract.
//
// An attempt has HeaderTimeout from its start to the response headers [2.2]; connecting has 5 s of that [2.1]. A
// response that has begun may take for ever, but the upstream may not be silent for longer than IdleTimeout [3.2, 3.3]. A
// peer that vanished without a word is noticed after 45 s, whatever the timeouts are [2.5]. All of these are a Timeout if
// the headers have not come, each naming its own limit, and only a Timeout is repeated: up to Options.Retries times, 100
// ms apart, with the same bytes [2.3]. A Connection error, that is everything else that brings no response, is final
// [2.6].
//
// The layers, each a file:
//
//	retry       repeats attempts that timed out
//	attempt     runs the two timers, and ends the attempt's context when its body is closed
//	resend      keeps http.Transport from sending again what may have been read
//	transport   HTTP/2 (package h2) or HTTP/1.1 (http.Transport), and how they dial
//
// # HTTP/2 or HTTP/1.1
//
// Whichever the upstream prefers in the TLS handshake, and that is HTTP/2 for the API. Measured with the benchmarks in
// protocol_bench_test.go (on two cores, one run of each), on the client's side alone:
//
//	                          HTTP/1.1   HTTP/2, net/http's   HTTP/2, ours
//	CPU per streamed event    23 µs      31 µs                26 µs
//	CPU per small request     198 µs     270 µs               172 µs
//	memory per idle stream    34 KiB     8 KiB                4 KiB
//
// What decides is what happens when something goes wrong. When the upstream closes a connection just as a request is sent,
// HTTP/2 says which requests it has not processed, and they are sent again; over HTTP/1.1 a POST is lost. A PING sees
// whether the upstream itself is alive, through proxies and NATs, where TCP's probes see the next hop. Events arrive as
// frames, where net/http's HTTP/1.1 reader may hold back a complete chunk until the next is complete (see segment.go). And
// a stream needs no TLS handshake of its own. The price is a shared fate: if a connection dies, so do the streams on it,
// a hundred at most. The streams of one person share the path that died in most such cases anyway.
package upstream
