package faults

import (
	"fmt"
	"testing"
)

// Clients that do not read hold up nobody else, and what is meant for them stays at the upstream. After timeout_secs they are given up,
// as clients that left (contract row 3.7).
func TestClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	const readers = 10
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := p.open(t, "timeout_secs = 3")
			var slow []*conn
			var gone []chan struct{}
			for i := range readers {
				path := fmt.Sprint("/flood-", i)
				gone = append(gone, make(chan struct{}))
				w.up.follow(path, script{flood: true, gone: gone[i]})
				slow = append(slow, w.open(path))
			}
			w.standsStill("proxy_response_bytes_total")
			for i := range 40 { // 4 s, longer than the timeout
				w.beside.expect(event)
				w.ended(w.post(fmt.Sprint("/good-", i), "{}"), answered)
			}
			w.bounded(120)
			for i, c := range slow {
				w.ended(c, leftWithin)
				wait(t, gone[i], "the proxy gives up its request")
			}
			w.undisturbed()
		})
	}
}
