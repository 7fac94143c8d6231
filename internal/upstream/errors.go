package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/h2"
)

// Kind says what became of an attempt that brought no response.
type Kind string

const (
	// Timeout: nothing came in time. The upstream may or may not have run the request. Retried.
	Timeout Kind = "timeout"
	// Connection: the upstream could not be reached or broke off. Never retried.
	Connection Kind = "connection"
)

var (
	// ErrHeaderTimeout ends an attempt whose response headers did not come within Options.HeaderTimeout.
	ErrHeaderTimeout = errors.New("no response headers in time")
	// ErrIdleTimeout ends a response body on which the upstream was silent for Options.IdleTimeout.
	ErrIdleTimeout = errors.New("the upstream fell silent")

	errProxyRefused = errors.New("the proxy named by HTTPS_PROXY refuses to connect to the upstream")
	errUnasked101   = errors.New("101 without an upgrade request")
	errBadStatus    = errors.New("malformed status code")
)

// Error is a request that got no response.
type Error struct {
	Kind     Kind
	Reason   string        // in our own words: it never quotes what the upstream sent
	Limit    time.Duration // the time limit that was hit, if Kind is Timeout
	Attempts int           // how many attempts were made
	Err      error         // the cause; its text may quote the upstream, so it is for errors.Is, not for printing
}

// Error returns a text that is safe to log and to show to the client.
func (e *Error) Error() string {
	if e.Kind == Timeout {
		return fmt.Sprintf("upstream timeout after %vs (%d attempts): %s", e.Limit.Seconds(), e.Attempts, e.Reason)
	}
	return "upstream connection failed: " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// classify says what an attempt's error means for the contract (rows 2.1 to 2.6).
func classify(err error, headerTimeout time.Duration) *Error {
	var opErr *net.OpError
	var dnsErr *net.DNSError
	isOp := errors.As(err, &opErr)
	switch {
	case errors.Is(err, ErrHeaderTimeout):
		return &Error{Kind: Timeout, Reason: "no response headers", Limit: headerTimeout, Err: err}
	case errors.As(err, &dnsErr) && !(isOp && opErr.Op == "proxyconnect"): // there it is the proxy's name
		return &Error{Kind: Connection, Reason: "cannot resolve the upstream's name", Err: err}
	case isDeadPeer(err):
		return &Error{Kind: Timeout, Reason: "the connection died", Limit: deadPeerAfter, Err: err}
	case isOp && opErr.Timeout() && dnsErr == nil:
		return &Error{Kind: Timeout, Reason: "cannot connect", Limit: connectTimeout, Err: err}
	case errors.Is(err, context.DeadlineExceeded): // net/http's own limit for CONNECT
		return &Error{Kind: Timeout, Reason: "the proxy named by HTTPS_PROXY does not answer", Limit: proxyTimeout, Err: err}
	}
	return &Error{Kind: Connection, Reason: reason(err), Err: err}
}

// isDeadPeer reports whether an established connection was given up because its peer no longer answers: HTTP/2's PING or
// TCP's own probes, which report the last ICMP error if there was one.
func isDeadPeer(err error) bool {
	if errors.Is(err, h2.ErrDead) {
		return true
	}
	var opErr *net.OpError
	if !errors.As(err, &opErr) || opErr.Op == "dial" || opErr.Op == "proxyconnect" { // what is left: read, write, readfrom
		return false
	}
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// reason describes a connection error without quoting bytes that came from the network.
func reason(err error) string {
	var (
		opErr   *net.OpError
		certErr *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		proxy   *url.Error
		reset   *h2.ResetError
	)
	text := err.Error()
	switch {
	case errors.As(err, &opErr) && opErr.Op == "proxyconnect", errors.As(err, &proxy):
		return "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to the upstream"
	case errors.As(err, &certErr):
		return "TLS: the upstream's certificate is not trusted"
	case opErr != nil && (opErr.Op == "remote error" || opErr.Op == "local error"): // crypto/tls's alerts
		return "TLS: the handshake failed"
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "TLS: the upstream does not speak TLS on this port"
	case errors.Is(err, errProxyRefused):
		return errProxyRefused.Error()
	case errors.Is(err, errUnasked101):
		return "the upstream switched protocols unasked"
	case errors.Is(err, h2.ErrRefused):
		return "the upstream refused the request twice"
	case errors.Is(err, h2.ErrNoStreams):
		return "the upstream allows no HTTP/2 streams"
	case errors.Is(err, h2.ErrClosed):
		return "the upstream closed the HTTP/2 connection"
	case errors.As(err, &reset):
		return "the upstream reset the HTTP/2 stream"
	case errors.Is(err, h2.ErrMalformed):
		return "the answer was not valid HTTP"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "server closed idle connection"):
		return "the upstream closed the connection before the response headers"
	case strings.Contains(text, "malformed"), strings.Contains(text, "transport connection broken"):
		return "the answer was not valid HTTP"
	case opErr != nil && opErr.Op == "dial":
		return "cannot connect"
	}
	return "no usable response"
}
