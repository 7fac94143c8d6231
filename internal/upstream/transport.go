package upstream

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/h2"
	"github.com/basher83/anthropic-oauth-proxy/internal/socket"
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
)

// readAhead reads from the network in large pieces, where crypto/tls would read one or two of its records at a time.
type readAhead struct {
	net.Conn
	buf *bufio.Reader
}

const readAheadSize = 16 << 10

func (c *readAhead) Read(p []byte) (int, error) { return c.buf.Read(p) }

// newTransport returns the transport with the settings this proxy needs. HTTP/2 is its own, the rest is http.Transport's.
func newTransport(opts Options) *h2.Transport {
	dialer := &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 3},
		ControlContext:  limitUnacknowledged,
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conn = socket.Direct(conn)
		if opts.PlainHTTP {
			return &segmentedConn{Conn: conn}, nil
		}
		return &readAhead{conn, bufio.NewReaderSize(conn, readAheadSize)}, nil
	}
	// A hanging handshake is the attempt's timeout; this only ends the dial that is left over, and so it is longer.
	handshakeTimeout := opts.HeaderTimeout + connectTimeout
	return h2.New(&http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		TLSHandshakeTimeout: handshakeTimeout,
		DisableCompression:  true, // else Accept-Encoding is invented and the answer decoded (contract rows 1.5, 1.14)
		MaxIdleConnsPerHost: opts.MaxIdleConns,
		IdleConnTimeout:     idleConnTimeout,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return errProxyRefused
			}
			return nil
		},
	}, h2.Options{
		SettingsTimeout: handshakeTimeout,
		PingAfter:       pingAfter,
		PingTimeout:     pingTimeout,
		IdleTimeout:     idleConnTimeout,
	})
}
