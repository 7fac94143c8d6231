package distance

import (
	"io"
	"net"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Every byte is late, but none has to wait for another: what a slow path with a small buffer would need minutes for is there
// hardly later than the first byte.
func TestRelayDelaysAndDoesNotThrottle(t *testing.T) {
	const roundTrip, size = 200 * time.Millisecond, 32 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	arrived := make(chan []time.Time, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			arrived <- nil
			return
		}
		first := make([]byte, 1)
		io.ReadFull(conn, first)
		times := []time.Time{time.Now()}
		n, _ := io.Copy(io.Discard, conn)
		if n == size-1 {
			times = append(times, time.Now())
		}
		arrived <- times
		conn.Close()
	}()
	relay, err := NewRelay(l.Addr().String(), roundTrip)
	assert.NilError(t, err)
	defer relay.Close()
	begun := time.Now()
	conn, err := net.Dial("tcp", relay.Addr())
	assert.NilError(t, err)
	defer conn.Close()
	_, err = conn.Write(make([]byte, size))
	assert.NilError(t, err)
	assert.NilError(t, conn.(*net.TCPConn).CloseWrite())
	times := <-arrived
	assert.Equal(t, len(times), 2, "not all of it arrived")
	first := times[0].Sub(begun)
	assert.Assert(t, first >= roundTrip*3/2, "the first byte took %v, handshake included", first)
	took := times[1].Sub(times[0]) // at 64 KiB a round trip it would be 100 s
	assert.Assert(t, took < 20*time.Second, "the last byte came %v after the first", took)
	_, err = io.ReadAll(conn)
	assert.NilError(t, err)
	assert.Assert(t, time.Since(times[1]) >= roundTrip/2, "the end came back too early")
	assert.Equal(t, relay.Dialed(), int64(1))
}

func TestRelaySwitchesAndRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	relay, err := NewRelay(l.Addr().String(), 0)
	assert.NilError(t, err)
	defer relay.Close()
	l.Close() // nobody listens any more
	conn, err := net.Dial("tcp", relay.Addr())
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	assert.Assert(t, err != nil && err != io.EOF, "%v", err)
}
