package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// pipeListener lets an http.Server and a Transport meet inside a synctest bubble.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// vanishing is a connection whose peer can be made to vanish: nothing arrives any more, and nothing is said of it.
type vanishing struct {
	net.Conn
	gone chan struct{}
}

func (c *vanishing) Write(p []byte) (int, error) {
	select {
	case <-c.gone:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

// Row 2.5: over HTTP/2, a peer that silently vanished is noticed within 60 s although the header timeout is 600 s, and
// counts as a timeout.
func TestDeadPeerOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener, gone := make(pipeListener), make(chan struct{})
		reached := make(chan struct{})
		server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(reached)
			<-r.Context().Done()
		})}
		server.Protocols.SetUnencryptedHTTP2(true)
		go server.Serve(listener)

		tr := newTransport(Options{HeaderTimeout: 600 * time.Second})
		tr.http.Proxy = nil
		tr.http.Protocols = new(http.Protocols)
		tr.http.Protocols.SetUnencryptedHTTP2(true)
		tr.http.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			listener <- &vanishing{theirs, gone}
			return &vanishing{ours, gone}, nil
		}
		a := &attempt{next: tr.http, headerTimeout: 600 * time.Second, idleTimeout: 600 * time.Second}
		go func() { <-reached; close(gone) }()
		start := time.Now()
		_, err := a.RoundTrip(request(t.Context()))
		var failed *Error
		assert.Assert(t, errors.As(err, &failed), "%v", err)
		assert.Equal(t, failed.Kind, Timeout, "%v", failed.Err)
		assert.Assert(t, time.Since(start) <= 60*time.Second, "noticed after %v", time.Since(start))
		failed.Attempts = 1
		assert.ErrorContains(t, err, "timeout after 45s (1 attempts): the connection died")
		close(listener)
		server.Close()
	})
}

// Rows 2.1, 2.5, 2.9, 1.14: the settings that no test here can wait for.
func TestTransportSettings(t *testing.T) {
	tr := newTransport(Options{HeaderTimeout: time.Minute, MaxIdleConns: 7}).http
	assert.Equal(t, connectTimeout, 5*time.Second)
	assert.Equal(t, tr.IdleConnTimeout, 90*time.Second)
	assert.Equal(t, tr.MaxIdleConnsPerHost, 7)
	assert.Equal(t, tr.DisableCompression, true)
	assert.Equal(t, tr.ResponseHeaderTimeout, time.Duration(0), "it would start after the request is written")
	assert.Assert(t, deadPeerAfter <= 60*time.Second)
	assert.Equal(t, tr.HTTP2.SendPingTimeout+tr.HTTP2.PingTimeout, deadPeerAfter)
	assert.Assert(t, tr.Protocols.HTTP1() && tr.Protocols.HTTP2())
}

// A slow client's stream holds at most streamWindow of the upstream's bytes in memory; net/http's default is 4 MiB.
func TestStreamWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := make(pipeListener)
		var written atomic.Int64
		server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for piece := make([]byte, 16<<10); r.Context().Err() == nil; {
				n, _ := w.Write(piece)
				written.Add(int64(n))
			}
		})}
		server.Protocols.SetUnencryptedHTTP2(true)
		go server.Serve(listener)

		tr := newTransport(Options{HeaderTimeout: time.Minute})
		tr.http.Proxy = nil
		tr.http.Protocols = new(http.Protocols)
		tr.http.Protocols.SetUnencryptedHTTP2(true)
		tr.http.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			listener <- theirs
			return ours, nil
		}
		resp, err := tr.http.RoundTrip(request(t.Context()))
		assert.NilError(t, err)
		assert.Equal(t, resp.ProtoMajor, 2)
		synctest.Wait() // the server is stuck: nobody reads
		got := written.Load()
		assert.Assert(t, got > streamWindow/2 && got < streamWindow+64<<10, "the upstream could send %d bytes ahead", got)
		resp.Body.Close()
		tr.http.CloseIdleConnections()
		close(listener)
		server.Close()
	})
}
