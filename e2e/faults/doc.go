// Package faults is the fault matrix: what the running binary does when an upstream or a client misbehaves, in the ways and at the
// moments that can be told apart from outside. Every test runs the binary between an upstream and clients on real sockets.
//
//	matrix, faults              what an upstream does to a request, before its answer and within it
//	h2connect, h2goaway         how an HTTP/2 connection begins and ends
//	idle                        what happens to connections that carry no request
//	outage, dns                 upstreams that cannot be reached
//	distance                    one that is far away
//	client_leave                clients that leave: every moment of a request × the three ways in which TCP ends
//	descriptors                 more clients than descriptors
//
// Most upstreams are scripted (stage, h1upstream, h2upstream): a stand-in that is a server of net/http's cannot misbehave like that.
// Whatever a test is about, it ends the same way (world). What every client saw, its line in the log, and all counters of /metrics
// must agree to the last unit; a stream beside the fault must not have noticed (beside); and when all sockets are closed the process
// must be back where it began: as many goroutines and descriptors, no body held, no slot taken, nobody in the queue.
//
// What only net/http decides about is not here, nor hostile bytes, which are in FuzzWire of the command. Under -race, the binary is
// watched by the race detector as well.
package faults
