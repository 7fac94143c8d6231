package rollout

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// latency is what the path adds in each direction. It gives a server and a client the time to act on what the other has
// just undone: on loopback alone, a connection is hardly ever closed while a request is on its way.
const latency = 20 * time.Millisecond

// forwarder does what kube-proxy does: a new connection goes to the current endpoint, an established one stays where
// it is.
type forwarder struct {
	listener net.Listener
	target   atomic.Value // string
	dialed   atomic.Int64 // connections since the last switch
}

func newForwarder(t *testing.T, target string) *forwarder {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	f := &forwarder{listener: l}
	f.switchTo(target)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", f.target.Load().(string))
			if err != nil {
				client.(*net.TCPConn).SetLinger(0) // as if the endpoint itself had refused
				client.Close()
				continue
			}
			f.dialed.Add(1)
			go carry(client, server)
			go carry(server, client)
		}
	}()
	return f
}

func (f *forwarder) switchTo(target string) {
	f.target.Store(target)
	f.dialed.Store(0)
}

// carry passes bytes on, each after the latency, and at last the end of the stream. A broken connection breaks the other.
func carry(from, to net.Conn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due)) // this is the wire, not a wait for anything
			if p.data == nil {
				to.(*net.TCPConn).CloseWrite()
				return
			}
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
	}()
	defer close(pieces)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{buf[:n], time.Now().Add(latency)}
		}
		if err == io.EOF {
			pieces <- piece{nil, time.Now().Add(latency)}
			return
		}
		if err != nil {
			to.Close()
			return
		}
	}
}
