// Package distance simulates a server that is far away. Its Relay adds the delay, and can also switch to another server.
package distance

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Relay forwards connections and delays every byte by half a round trip. It delays the first bytes of a connection by one round trip
// more, the time of TCP's handshake. It buffers as much as needed, so the path has the bandwidth of the machine. It loses nothing and
// does not simulate TCP's slow start.
type Relay struct {
	listener net.Listener
	oneWay   time.Duration
	target   atomic.Value // string
	dialed   atomic.Int64
}

// underWay is how many pieces of a connection can be in flight in one direction. A piece is what one read returned.
const underWay = 1 << 14

// NewRelay listens on loopback until Close, and forwards connections to the target.
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

// Addr returns the address on which it listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Switch sends new connections to another target, as kube-proxy does. Established connections stay.
func (r *Relay) Switch(target string) {
	r.target.Store(target)
	r.dialed.Store(0)
}

// Dialed returns how many connections there have been since the last Switch.
func (r *Relay) Dialed() int64 { return r.dialed.Load() }

// Close accepts no further connections. Open ones end when their client or server ends them.
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

// carry forwards bytes, and then the end of the stream. If one connection breaks, it breaks the other.
func (r *Relay) carry(from, to *net.TCPConn, connected time.Time) {
	type piece struct {
		data []byte // nil: the end
		due  time.Time
	}
	pieces := make(chan piece, underWay)
	go func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // this simulates the wire; it does not wait for an event
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
