package upstream

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout      = 30 * time.Second // for the name lookup and the TCP connection: Go's resolver needs 10 s to get past one dead server (contract row 2.1)
	handshakeTimeout = 10 * time.Second // for TLS

	// How long a connection may be idle (contract row 2.9).
	plainIdle = 90 * time.Second
	tlsIdle   = time.Hour

	// Over HTTP/2 a PING is sent after 30 s of silence and must be answered within 15 s (contract row 2.5 allows 60 s).
	deadPeerAfter = pingAfter + pingTimeout
	pingAfter     = 30 * time.Second
	pingTimeout   = 15 * time.Second

	// http2Window is how much of a stream may be in flight or wait for its client. It allows 6 MB/s at 80 ms, and limits 200 clients that
	// do not read to 100 MiB (contract row 3.1).
	http2Window = 512 << 10
)

// transport is net/http's, except that it drops idle connections after the machine has slept.
type transport struct {
	*http.Transport
	clock clock
}

func newTransport(opts Options) *transport {
	dialer := &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 3},
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: handshakeTimeout,
		ForceAttemptHTTP2:   true, // as with net/http's own dialer; GODEBUG=http2client=0 still turns it off
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxReceiveBufferPerStream: http2Window},
		DisableCompression:  true, // else net/http adds Accept-Encoding and decodes the answer (contract rows 1.5, 1.14)
		MaxIdleConnsPerHost: opts.MaxIdleConns,
		IdleConnTimeout:     tlsIdle,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return errProxyRefused
			}
			return nil
		},
	}
	if opts.PlainHTTP {
		t.IdleConnTimeout = plainIdle
	} else {
		go x509.SystemCertPool() // Go reads the roots once, which takes about 13 ms; do it before the first request
	}
	return &transport{Transport: t}
}

// RoundTrip is net/http's, but closes idle connections after a sleep.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.clock.slept() {
		t.CloseIdleConnections()
	}
	return t.Transport.RoundTrip(req)
}
