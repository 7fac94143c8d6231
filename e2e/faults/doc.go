// Package faults is the fault matrix. It tests what the running binary does when an upstream or a client misbehaves. It covers the
// faults and the moments that differ as seen from outside. Every test runs the binary between an upstream and clients on real sockets.
//
//	matrix, faults              faults of an upstream before and within its answer
//	h2connect, h2goaway         how an HTTP/2 connection begins and ends
//	idle                        faults on connections that carry no request
//	outage, dns                 upstreams that cannot be reached
//	distance                    an upstream that is far away
//	client_leave                clients that leave: every moment of a request × three ways to end a TCP connection
//	descriptors                 more clients than descriptors
//
// Most upstreams are scripted (stage, h1upstream, h2upstream), because a net/http server cannot misbehave like that. All tests end with
// the same checks (world). For each request, the client's result, the log line and the counters of /metrics must agree exactly. A
// second stream must not have been disturbed (beside). When all sockets are closed, the process must have as many goroutines and
// descriptors as before, no bodies in memory, no slots in use and an empty queue.
//
// What only net/http decides is not tested here. Hostile bytes are tested by FuzzWire in the command's folder. With -race, the binary
// runs under the race detector too.
package faults
