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
	dialTimeout      = 30 * time.Second // for name and TCP: Go's resolver needs 10 s to get past one dead server (contract row 2.1)
	handshakeTimeout = 10 * time.Second // for TLS

	// How long a connection may lie idle (contract row 2.9).
	plainIdle = 90 * time.Second
	tlsIdle   = time.Hour

	// Over HTTP/2 a PING is sent after 30 s of silence and must be answered within 15 s (contract row 2.5 allows 60 s).
	deadPeerAfter = pingAfter + pingTimeout
	pingAfter     = 30 * time.Second
	pingTimeout   = 15 * time.Second

	// http2Window is how much of a stream may be under way or wait for its client: enough for 6 MB/s at 80 ms, while 200
	// clients that do not read hold 100 MiB (contract row 3.1).
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
		DisableCompression:  true, // else Accept-Encoding is invented and the answer decoded (contract rows 1.5, 1.14)
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
		go x509.SystemCertPool() // Go reads it once, for some 13 ms, and would do that within the first request
	}
	return &transport{Transport: t}
}

// RoundTrip is net/http's.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.clock.slept() {
		t.CloseIdleConnections()
	}
	return t.Transport.RoundTrip(req)
}
