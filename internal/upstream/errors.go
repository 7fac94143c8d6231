package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"time"
)

// Kind says what ended a request that got no response.
type Kind string

const (
	// Timeout: nothing came in time. Retried.
	Timeout Kind = "timeout"
	// Connection: the upstream could not be reached or broke off. Never retried.
	Connection Kind = "connection"
)

// Fate says what became of a request that got no response.
type Fate string

const (
	// NothingSent: nothing of the request has left. To send it once more costs nothing.
	NothingSent Fate = "nothing_sent"
	// MayHaveBeenRead: the upstream may have run the request, and billed it.
	MayHaveBeenRead Fate = "may_have_been_read"
)

var (
	// ErrHeaderTimeout ends an attempt whose response headers did not come within Options.HeaderTimeout.
	ErrHeaderTimeout = errors.New("no response headers in time")
	// ErrIdleTimeout ends a response body on which the upstream was silent for Options.IdleTimeout.
	ErrIdleTimeout = errors.New("the upstream fell silent")

	errConnectTimeout = errors.New("no connection in time")
	errProxyRefused   = errors.New("the proxy named by HTTPS_PROXY refuses to connect to the upstream")
	errUnasked101     = errors.New("101 without an upgrade request")
	errBadStatus      = errors.New("malformed status code")
	errRefusedTwice   = errors.New("the upstream refused the request twice")
	errNotRepeated    = errors.New("the upstream reset or refused the request")
)

// Error is a request that got no response.
type Error struct {
	Kind     Kind
	Fate     Fate
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
	timeout := func(limit time.Duration, reason string) *Error {
		return &Error{Kind: Timeout, Limit: limit, Reason: reason, Err: err}
	}
	var opErr *net.OpError
	var dnsErr *net.DNSError
	isOp := errors.As(err, &opErr)
	switch {
	case errors.Is(err, ErrHeaderTimeout):
		return timeout(headerTimeout, "no response headers")
	case errors.Is(err, errConnectTimeout), errors.Is(err, context.DeadlineExceeded): // the attempt's limit, and a dial's own
		return timeout(connectTimeout, "cannot connect")
	case errors.As(err, &dnsErr) && !(isOp && opErr.Op == "proxyconnect"): // there it is the proxy's name
		return &Error{Kind: Connection, Reason: "cannot resolve the upstream's name", Err: err}
	case isDeadPeer(err):
		return timeout(deadPeerAfter, "the connection died")
	case isOp && opErr.Timeout() && dnsErr == nil:
		return timeout(connectTimeout, "cannot connect")
	}
	return &Error{Kind: Connection, Reason: Reason(err), Err: err}
}

// isDeadPeer reports whether an established connection was given up because its peer no longer answers: HTTP/2's PING or
// TCP's own probes, which report the last ICMP error if there was one.
func isDeadPeer(err error) bool {
	if says(err, pingUnanswered) {
		return true
	}
	var opErr *net.OpError
	if !errors.As(err, &opErr) || opErr.Op == "dial" || opErr.Op == "proxyconnect" { // what is left: read, write, readfrom
		return false
	}
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// Reason says why a connection or the body of a response broke off, without quoting bytes that came from the network.
func Reason(err error) string {
	var (
		opErr   *net.OpError
		certErr *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		proxy   *url.Error
		reset   streamError
	)
	switch {
	case errors.As(err, &opErr) && opErr.Op == "proxyconnect", errors.As(err, &proxy):
		return "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"
	case isDeadPeer(err):
		return "the connection died"
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
	case errors.As(err, &record):
		return "TLS: the upstream does not speak TLS on this port"
	case errors.Is(err, errProxyRefused), errors.Is(err, ErrIdleTimeout), errors.Is(err, errRefusedTwice), errors.Is(err, errNotRepeated):
		return err.Error()
	case errors.Is(err, errUnasked101):
		return "the upstream switched protocols unasked"
	case errors.As(err, &reset) && reset.fromPeer():
		return "the upstream reset the HTTP/2 stream (" + reset.code() + ")"
	case says(err, protocolReset):
		return "the upstream reset the HTTP/2 stream (PROTOCOL_ERROR)"
	case says(err, goneAway):
		return "the upstream closed the HTTP/2 connection"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), says(err, closedIdle):
		return "the upstream closed the connection"
	case reset.Code != 0, errors.Is(err, errBadStatus), says(err, notHTTP):
		return "the answer was not valid HTTP"
	case opErr != nil && opErr.Op == "dial":
		return "cannot connect"
	}
	return "no usable response"
}
