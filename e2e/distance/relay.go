// Package distance puts a server far away: behind a Relay, which can also change its target.
package distance

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Relay passes connections on, and every byte as late as if the path were long: half a round trip after it came, and the first
// ones of a connection a round trip later still, since they would have waited for TCP's handshake. What is under way has room
// enough, so the path has as much bandwidth as the machine; it loses nothing, and TCP's slow start does not show.
type Relay struct {
	listener net.Listener
	oneWay   time.Duration
	target   atomic.Value // string
	dialed   atomic.Int64
}

// underWay is how many pieces of a connection can be under way in one direction, each of up to a read's size.
const underWay = 1 << 14

// NewRelay listens on loopback for connections to the target, until Close.
func NewRelay(target string, roundTrip time.Duration) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: l, oneWay: roundTrip / 2}
	r.Switch(target)
	go r.serve()
	return r, nil
}

// Addr is where it listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Switch sends new connections elsewhere, as kube-proxy does; an established one stays where it is.
func (r *Relay) Switch(target string) {
	r.target.Store(target)
	r.dialed.Store(0)
}

// Dialed returns how many connections there have been since the last Switch.
func (r *Relay) Dialed() int64 { return r.dialed.Load() }

// Close takes no further connections. Those that stand end with their clients or servers.
func (r *Relay) Close() error { return r.listener.Close() }

func (r *Relay) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target.Load().(string))
		if err != nil {
			_ = client.(*net.TCPConn).SetLinger(0) // as if the target itself had refused
			client.Close()
			continue
		}
		r.dialed.Add(1)
		connected := time.Now().Add(2 * r.oneWay)
		go r.carry(client.(*net.TCPConn), server.(*net.TCPConn), connected)
		go r.carry(server.(*net.TCPConn), client.(*net.TCPConn), connected)
	}
}

// carry passes bytes on, and at last the end of the stream. A connection that breaks breaks the other.
func (r *Relay) carry(from, to *net.TCPConn, connected time.Time) {
	type piece struct {
		data []byte // nil: the end
		due  time.Time
	}
	pieces := make(chan piece, underWay)
	go func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // this is the wire, not a wait for anything
			if p.data == nil {
				_ = to.CloseWrite() // it may be broken already
			} else if _, err := to.Write(p.data); err != nil {
				_ = from.SetLinger(0)
				from.Close()
			}
		}
	}()
	defer close(pieces)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		due := time.Now()
		if due.Before(connected) {
			due = connected
		}
		due = due.Add(r.oneWay)
		if n > 0 {
			pieces <- piece{append([]byte(nil), buf[:n]...), due}
		}
		if errors.Is(err, io.EOF) {
			pieces <- piece{nil, due}
			return
		}
		if err != nil {
			_ = to.SetLinger(0)
			to.Close()
			return
		}
	}
}
