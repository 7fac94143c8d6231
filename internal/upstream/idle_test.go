package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// pipes is a network without sockets, for tests in which time is not real.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial() net.Conn {
	client, server := net.Pipe()
	p <- server
	return client
}

// Row 2.9: an idle HTTP/1.1 connection is closed after 90 s; HTTP/2's is kept for an hour.
func TestIdleConnections(t *testing.T) {
	certificates := certificates()
	for _, tt := range []struct {
		name       string
		url        string
		protocol   string
		kept, lost time.Duration
	}{
		{"HTTP/1.1", "http://upstream/", "HTTP/1.1", 89 * time.Second, 91 * time.Second},
		{"HTTP/2", "https://upstream/", "HTTP/2.0", 59 * time.Minute, 61 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := make(pipes)
				s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ErrorLog: log.New(io.Discard, "", 0)}
				rt := newTransport(Options{MaxIdleConns: 1, PlainHTTP: tt.protocol == "HTTP/1.1"})
				if tt.protocol == "HTTP/1.1" {
					go s.Serve(network)
				} else {
					s.TLSConfig = &tls.Config{Certificates: certificates}
					go s.ServeTLS(network, "", "")
					rt.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // no more than a test's own pipe
				}
				rt.DialContext = func(context.Context, string, string) (net.Conn, error) { return network.dial(), nil }
				// request reports whether it went out on a connection that was there.
				request := func() (reused bool) {
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
					resp, err := get(ctx, t, rt, tt.url, 0)
					assert.NilError(t, err)
					assert.Equal(t, resp.Proto, tt.protocol)
					synctest.Wait()
					return reused
				}
				assert.Assert(t, !request())
				time.Sleep(tt.kept)
				assert.Assert(t, request(), "the connection was closed after less than %v", tt.kept)
				time.Sleep(tt.lost)
				assert.Assert(t, !request(), "the connection was kept for more than %v", tt.lost)
				rt.CloseIdleConnections()
				close(network)
				s.Close()
				synctest.Wait()
			})
		})
	}
}

// Row 2.9: after a sleep no idle connection is used. Setting the clock, or a busy machine, does not count as a sleep.
func TestSleep(t *testing.T) {
	assert.Assert(t, isSleep(8*time.Hour, 3*time.Second))
	assert.Assert(t, isSleep(time.Minute, 0))
	assert.Assert(t, !isSleep(time.Hour, time.Hour))
	assert.Assert(t, !isSleep(5*time.Second, 0))
	assert.Assert(t, !isSleep(-time.Hour, time.Second))
	var c clock
	assert.Assert(t, !c.slept())
	assert.Assert(t, !c.slept())
}

// Row 2.1: the settings that no test here can wait for.
func TestTransportSettings(t *testing.T) {
	assert.Equal(t, dialTimeout, 30*time.Second)
	assert.Equal(t, handshakeTimeout, 10*time.Second)
}
