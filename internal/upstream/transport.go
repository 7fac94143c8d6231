package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	connectTimeout = 10 * time.Second // contract row 2.1

	// How long a connection may lie unused (contract row 2.9).
	http1Idle = 90 * time.Second
	http2Idle = time.Hour

	// deadPeerAfter is how long a connection may leave a sign of life unanswered (contract row 2.5 allows 60 s): TCP
	// probes from 15 s of silence on, three of them, 10 s apart, or unacknowledged data for that long; over HTTP/2 a
	// PING after 30 s of silence, answered within 15 s.
	deadPeerAfter = 45 * time.Second
	pingAfter     = 30 * time.Second
	pingTimeout   = deadPeerAfter - pingAfter

	// http2Window is how much of a stream may be under way or wait for its client: enough for 6 MB/s at 80 ms, and 200
	// clients that do not read hold 100 MiB (contract row 3.1).
	http2Window = 512 << 10
)

// transport is net/http's, with what one setting cannot say: that HTTP/1.1 and HTTP/2 connections may lie idle for different
// times, and that none is worth anything after the machine has slept.
type transport struct {
	*http.Transport
	flushing atomic.Bool // all idle connections will be closed
	clock    clock
}

func newTransport(opts Options) *transport {
	dialer := &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 3},
		ControlContext:  limitUnacknowledged,
	}
	dial := func(ctx context.Context, network, addr string) (*conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newConn(c, opts.PlainHTTP), nil
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         func(ctx context.Context, network, addr string) (net.Conn, error) { return dial(ctx, network, addr) },
		TLSClientConfig:     &tls.Config{}, // net/http adds the protocols to offer, and none for GODEBUG=http2client=0
		TLSHandshakeTimeout: connectTimeout,
		Protocols:           new(http.Protocols),
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxReceiveBufferPerStream: http2Window},
		DisableCompression:  true, // else Accept-Encoding is invented and the answer decoded (contract rows 1.5, 1.14)
		MaxIdleConnsPerHost: opts.MaxIdleConns,
		IdleConnTimeout:     http2Idle,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return errProxyRefused
			}
			return nil
		},
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(true)
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := t.TLSClientConfig.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
		secured := tls.Client(c, config)
		// net/http tells a trace of a handshake only when it is over, and only of HTTP/2's.
		trace := httptrace.ContextClientTrace(ctx)
		if trace != nil && trace.TLSHandshakeStart != nil {
			trace.TLSHandshakeStart()
		}
		if err := secured.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		state := secured.ConnectionState()
		if state.NegotiatedProtocol == "h2" {
			c.greeted = make(chan struct{})
			return secured, nil
		}
		if trace != nil && trace.TLSHandshakeDone != nil {
			trace.TLSHandshakeDone(state, nil)
		}
		return newConn(secured, true), nil // net/http need not see that there is TLS below
	}
	return &transport{Transport: t}
}

// RoundTrip is net/http's, on connections from before a sleep only if they are in use.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.clock.slept() {
		t.CloseIdleConnections()
	}
	return t.Transport.RoundTrip(req)
}

// idle notes that an HTTP/1.1 connection has become idle. net/http has one limit for both protocols, an hour; so http1Idle
// later all idle connections are closed, this one among them.
func (t *transport) idle() {
	if t.flushing.CompareAndSwap(false, true) {
		time.AfterFunc(http1Idle, func() {
			t.flushing.Store(false)
			t.CloseIdleConnections()
		})
	}
}
