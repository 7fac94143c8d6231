package upstream

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	connectTimeout  = 5 * time.Second  // contract row 2.1
	proxyTimeout    = time.Minute      // net/http's, for the answer to CONNECT
	idleConnTimeout = 90 * time.Second // contract row 2.9

	// deadPeerAfter is how long a connection may leave a sign of life unanswered (contract row 2.5 allows 60 s): TCP
	// probes from 15 s of silence on, three of them, 10 s apart, or unacknowledged data for that long; over HTTP/2 a
	// PING after 30 s of silence, answered within 15 s.
	deadPeerAfter = 45 * time.Second
	pingAfter     = 30 * time.Second
	pingTimeout   = deadPeerAfter - pingAfter

	// streamWindow is what one HTTP/2 stream may send ahead of a slow client. net/http's 4 MiB times a thousand slow
	// clients would be the memory of the whole node.
	streamWindow = 256 << 10
)

// transport is http.Transport with the settings this proxy needs.
type transport struct {
	http           *http.Transport
	protocolResets atomic.Int64
}

func newTransport(opts Options) *transport {
	dialer := &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 3},
		ControlContext:  limitUnacknowledged,
	}
	dial := dialFunc(dialer.DialContext)
	if opts.PlainHTTP {
		dial = segmented(dial)
	}
	t := &transport{http: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dial,
		Protocols:   new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
			MaxReceiveBufferPerStream: streamWindow,
		},
		// A hanging handshake is the attempt's timeout; this only ends the dial that is left over, and so it is longer.
		TLSHandshakeTimeout: opts.HeaderTimeout + connectTimeout,
		DisableCompression:  true, // else Accept-Encoding is invented and the answer decoded (contract rows 1.5, 1.14)
		MaxIdleConnsPerHost: opts.MaxIdleConns,
		IdleConnTimeout:     idleConnTimeout,
	}}
	t.http.Protocols.SetHTTP1(true)
	t.http.Protocols.SetHTTP2(true)
	t.http.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
		if res.StatusCode != http.StatusOK {
			return errProxyRefused
		}
		return nil
	}
	// Go 1.26's own HTTP/2 does not call HTTP2Config.CountError when a stream is reset; golang.org/x/net's does.
	//lint:ignore SA1019 what replaces it does not work yet, see above; TestHTTP2 in internal/proxy tells when it does
	h2, err := http2.ConfigureTransports(t.http)
	if err != nil {
		panic(err) // only for a Transport that has HTTP/2 already
	}
	//lint:ignore SA1019 as above
	h2.CountError = func(what string) {
		if what == "recv_rststream_PROTOCOL_ERROR" {
			t.protocolResets.Add(1)
		}
	}
	return t
}
