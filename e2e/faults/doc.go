// Package faults is the fault matrix: what the running binary does when an upstream or a client misbehaves, in every way
// and at every moment that can be told apart from outside.
//
// Every test runs the binary as a process of its own, between a scripted upstream and scripted clients on real sockets, and
// is a row of a table wherever it can be:
//
//	h2…_test.go          an HTTP/2 upstream: connections, streams, headers, flow control, limits, floods, shapes of answers
//	h1…_test.go          an HTTP/1.1 upstream: breaks, malformed heads, bodies that do not fit their framing
//	tls_test.go          before HTTP: the TLS handshake and certificates
//	dns_linux_test.go    before that: a name server that does not answer
//	client_leave_test.go clients that leave: every moment of a request × the three ways in which TCP ends
//	client_slow_test.go  clients that stall or dribble, in the head or the body, and clients that do not read
//	client_bytes_test.go clients that send what has two readings, or none: framing, chunks, lines, targets
//	client_many_test.go  ten thousand clients, and more clients than descriptors
//
// Whatever a test is about, it ends the same way (world_test.go). What every client saw, its line in the log, and all counters of
// /metrics must agree to the last unit; streams beside the fault must not have noticed; and when all sockets are closed the process
// must be back where it began: as many goroutines, as many descriptors, no body held, no slot taken, nobody in the queue.
// The HTTP/2 upstream also referees (h2referee_test.go): a frame that RFC 9113 forbids the proxy to send fails the test.
//
// Tests of clients run before an upstream of either protocol (peers_test.go) where that can make a difference. Hostile bytes at random
// are in FuzzWire of the command. A host that vanishes without a word is not here but in package deadpeer, since noticing takes 45 s.
//
// FAULTS_BINARY names a binary to be tested instead of the one that is built from the module around this one. Under -race, what is
// built is watched by the race detector as well.
package faults
