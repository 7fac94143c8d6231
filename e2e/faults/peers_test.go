package faults

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// peer is an upstream of either protocol, as far as tests of clients need to know it.
type peer interface {
	upstream
	follow(path string, s script)
	await(path string, n int)
	requests(path string) int
	received() []string // method, path and body of every request
}

// script is what a peer does with a request. It reads all of it, sends the beginning of an answer, waits, and sends the end.
type script struct {
	late  bool            // the answer begins after the wait only
	flood bool            // it is longer than any client's patience
	until <-chan struct{} // not nil: this is what it waits for
	gone  chan<- struct{} // not nil: it waits until the proxy gives the request up, and closes this; there is no end of the answer
}

// between is a world between clients and a peer.
type between struct {
	*watched
	up peer
}

var protocols = []struct {
	name string
	open func(t *testing.T, settings ...string) between
}{
	{"HTTP/1.1", func(t *testing.T, settings ...string) between {
		up := newH1Upstream(t)
		return between{newH1World(t, up, settings...), up}
	}},
	{"HTTP/2", func(t *testing.T, settings ...string) between {
		up := newH2Upstream(t)
		return between{newH2World(t, up, settings...), up}
	}},
}

// inflow is a piece of a flood.
var inflow = strings.Repeat(event, 32<<10/len(event))

func (u *h1Upstream) follow(path string, s script) {
	u.on(path, func(r *h1request) {
		if !s.late {
			r.stream()
			r.send(event)
		}
		r.whole()
		for s.flood && !r.over {
			if _, err := r.conn.Write([]byte(chunk(inflow))); err != nil { // at the latest when the world ends
				r.over = true
			}
		}
		if s.gone != nil {
			if r.over || r.gone() {
				close(s.gone)
			}
			return
		}
		if s.until != nil {
			r.pause(s.until)
		}
		if s.late {
			r.stream()
		}
		r.finish(event)
	})
}

func (u *h2Upstream) follow(path string, sc script) {
	u.on(path, func(s *h2stream) {
		if !sc.late {
			s.stream()
			s.send(event)
		}
		s.whole()
		for sc.flood && s.send(inflow) {
		}
		if sc.gone != nil {
			if _, ok := s.gone(); ok {
				close(sc.gone)
			}
			return
		}
		if sc.until != nil {
			s.pause(sc.until)
		}
		if sc.late {
			s.stream()
		}
		s.finish(event)
	})
}

func (u *h1Upstream) received() (requests []string) {
	for _, r := range u.all() {
		text := r.method + " " + r.path + " "
		select {
		case <-r.received:
			text += r.body
		default:
			text += "(not whole)"
		}
		requests = append(requests, text)
	}
	return requests
}

func (u *h2Upstream) received() (requests []string) {
	for _, s := range u.streams() {
		text := s.field(":method") + " " + s.path + " "
		if s.ok(func() bool { return s.complete }) {
			text += s.body.String()
		} else {
			text += "(not whole)"
		}
		requests = append(requests, text)
	}
	return requests
}

// asked returns what a test's own requests were when they reached the peer. Over several connections they have no order.
func (w between) asked() []string {
	all := slices.DeleteFunc(w.up.received(), func(r string) bool { return strings.Contains(r, " /beside ") || strings.Contains(r, " /after ") })
	slices.Sort(all)
	return all
}

// isTimeout reports whether a read or write was given up since it took too long.
func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
