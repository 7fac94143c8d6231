package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"time"
)

// Kind is what ended a request that got no response.
type Kind string

const (
	// Timeout: no response in time. Retried.
	Timeout Kind = "timeout"
	// Connection: the upstream could not be reached or broke off. Never retried.
	Connection Kind = "connection"
	// InvalidRequest: the upstream does not accept this request. Never retried.
	InvalidRequest Kind = "invalid_request"
)

// Sent is how much of a request without a response may have reached the upstream.
type Sent string

const (
	// NothingSent: nothing of the request was sent. Sending it again costs nothing.
	NothingSent Sent = "nothing_sent"
	// MayHaveBeenRead: the upstream may have run and billed the request.
	MayHaveBeenRead Sent = "may_have_been_read"
)

var (
	// ErrHeaderTimeout ends an attempt whose response headers did not come within Options.HeaderTimeout.
	ErrHeaderTimeout = errors.New("no response headers in time")
	// ErrIdleTimeout ends a response body on which the upstream was silent for Options.IdleTimeout.
	ErrIdleTimeout = errors.New("the upstream fell silent")

	errProxyRefused      = errors.New("the proxy named by HTTPS_PROXY refuses to connect to the upstream")
	errSwitchedProtocols = errors.New("the upstream switched protocols without being asked")
	errGoesAway          = errors.New("the upstream closes every new HTTP/2 connection")
	errBadStatus         = errors.New("malformed status code")
)

// The reasons of timeouts. The runbook quotes them.
const (
	reasonResolve   = "cannot resolve the upstream's name"
	reasonConnect   = "cannot connect"
	reasonHandshake = "TLS: the handshake did not finish"
	reasonNoHeaders = "no response headers"
	reasonDied      = "the connection died"
)

const (
	// reasonHeaders: the request has more headers than the upstream accepts.
	reasonHeaders = "request headers too large for the upstream"
	// reasonRefused: the upstream said that it did not process the request.
	reasonRefused = "the upstream refused the request"
	// reasonProxy is the reason of any failure to connect through a forward proxy.
	reasonProxy = "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"
)

// Error is a request that got no response.
type Error struct {
	Kind     Kind
	Sent     Sent
	Reason   string        // our own text, which never quotes what the upstream sent
	Limit    time.Duration // the time limit that was reached, if Kind is Timeout
	Attempts int           // how many attempts were made
	Err      error         // the cause; its text may quote the upstream, so it is for errors.Is, not for printing

	unprocessed bool // the upstream did not process the request, so it can be sent again
}

// Error returns a text that is safe to log and to show to the client.
func (e *Error) Error() string {
	switch e.Kind {
	case Timeout:
		return fmt.Sprintf("upstream timeout after %vs (%d attempts): %s", e.Limit.Seconds(), e.Attempts, e.Reason)
	case InvalidRequest:
		return e.Reason
	}
	return "upstream connection failed: " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// classify finds the Kind and Reason of an attempt's error (contract rows 2.1 to 2.6 and 2.10). Limit is 0 if the
// caller must fill it in: for ErrHeaderTimeout and the resolver's own timeout.
func classify(err error) *Error {
	timeout := func(limit time.Duration, reason string) *Error {
		return &Error{Kind: Timeout, Limit: limit, Reason: reason, Err: err}
	}
	var (
		opErr  *net.OpError
		dnsErr *net.DNSError
	)
	isOp := errors.As(err, &opErr)
	viaProxy := isOp && opErr.Op == "proxyconnect"
	switch {
	case errors.Is(err, ErrHeaderTimeout):
		return timeout(0, reasonNoHeaders)
	case begins(err, headersTooLarge):
		return &Error{Kind: InvalidRequest, Reason: reasonHeaders, Err: err}
	case begins(err, handshakeTimedOut):
		return timeout(handshakeTimeout, reasonHandshake)
	case viaProxy && begins(opErr.Err, handshakeTimedOut):
		return timeout(handshakeTimeout, reasonProxy)
	case viaProxy && opErr.Timeout():
		return timeout(dialTimeout, reasonProxy)
	case !viaProxy && errors.As(err, &dnsErr) && dnsErr.IsTimeout:
		return timeout(0, reasonResolve)
	case isDeadPeer(err):
		return timeout(deadPeerAfter, reasonDied)
	case isOp && opErr.Op == "dial" && opErr.Timeout():
		return timeout(dialTimeout, reasonConnect)
	}
	return &Error{Kind: Connection, Reason: Reason(err), Err: err}
}

// isDeadPeer reports whether an established connection failed because its peer no longer answers HTTP/2's PING or TCP's own probes.
// TCP reports the last ICMP error if there was one.
func isDeadPeer(err error) bool {
	if begins(err, pingUnanswered) {
		return true
	}
	var opErr *net.OpError
	if !errors.As(err, &opErr) || opErr.Op == "dial" || opErr.Op == "proxyconnect" { // the other operations are read, write and readfrom
		return false
	}
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// Reason returns why a connection or the body of a response broke off. It does not quote bytes from the network.
func Reason(err error) string {
	var (
		opErr   *net.OpError
		dnsErr  *net.DNSError
		certErr *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		proxy   *url.Error
	)
	code, fromPeer := streamReset(err)
	switch {
	case errors.As(err, &opErr) && opErr.Op == "proxyconnect", errors.As(err, &proxy):
		return reasonProxy
	case errors.As(err, &dnsErr):
		return reasonResolve
	case isDeadPeer(err):
		return reasonDied
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no file descriptors left"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to the upstream"
	case errors.As(err, &certErr):
		return certificateReason(certErr)
	case opErr != nil && (opErr.Op == "remote error" || opErr.Op == "local error"): // crypto/tls's alerts
		return "TLS: the handshake failed"
	case errors.As(err, &record):
		return "TLS: the upstream does not speak TLS on this port"
	case errors.Is(err, errProxyRefused), errors.Is(err, ErrIdleTimeout), errors.Is(err, errSwitchedProtocols),
		errors.Is(err, errGoesAway):
		return err.Error()
	case fromPeer:
		return "the upstream reset the HTTP/2 stream (" + code + ")"
	case says(err, goneAway):
		return "the upstream closed the HTTP/2 connection"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), says(err, closed):
		return "the upstream closed the connection"
	case code != "", errors.Is(err, errBadStatus), says(err, notHTTP):
		return "the answer was not valid HTTP"
	case opErr != nil && opErr.Op == "dial":
		return reasonConnect
	}
	return "no usable response"
}

// certificateReason returns what is wrong with the upstream's certificate.
func certificateReason(err *tls.CertificateVerificationError) string {
	var (
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
	)
	switch {
	case errors.As(err, &name):
		return "TLS: the upstream's certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return "TLS: the upstream's certificate is not valid yet"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "TLS: the upstream's certificate has expired"
	}
	return "TLS: the upstream's certificate is not trusted"
}
