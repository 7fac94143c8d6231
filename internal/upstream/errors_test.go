package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Rows 2.1, 2.5 and 2.6: what each error means. The texts are net/http's own, wrapped as it wraps them.
func TestClassify(t *testing.T) {
	op := func(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }
	badCert := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	for _, tc := range []struct {
		err    error
		kind   Kind
		reason string
	}{
		{ErrHeaderTimeout, Timeout, "no response headers"},
		{op("dial", os.ErrDeadlineExceeded), Timeout, "cannot connect"},
		{op("dial", context.DeadlineExceeded), Timeout, "cannot connect"},
		{op("dial", os.NewSyscallError("socket", syscall.EMFILE)), Connection, "no file descriptors left"},
		{op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)), Connection, "connection refused"},
		{op("dial", os.NewSyscallError("connect", syscall.EHOSTUNREACH)), Connection, "no route to the upstream"},
		{op("dial", &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}), Connection, "cannot resolve the upstream's name"},
		{op("dial", &net.DNSError{Err: "timeout", Name: "x", IsTimeout: true}), Timeout, "cannot resolve the upstream's name"},
		{op("read", os.NewSyscallError("read", syscall.ETIMEDOUT)), Timeout, "the connection died"},
		{op("write", os.NewSyscallError("write", syscall.EHOSTUNREACH)), Timeout, "the connection died"},
		{op("readfrom", op("write", os.NewSyscallError("write", syscall.ETIMEDOUT))), Timeout, "the connection died"},
		{op("read", os.NewSyscallError("read", syscall.ECONNRESET)), Connection, "connection reset"},
		{op("proxyconnect", op("dial", syscall.ECONNREFUSED)), Connection, "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"},
		{fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", io.ErrUnexpectedEOF), Connection, "the upstream closed the connection"},
		{errors.New(`malformed HTTP response "SECRET"`), Connection, "the answer was not valid HTTP"},
		{errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer"), Connection, "the upstream reset the HTTP/2 stream (INTERNAL_ERROR)"},
		{errors.New("stream error: stream ID 1; PROTOCOL_ERROR; SECRET"), Connection, "the answer was not valid HTTP"},
		{op("proxyconnect", os.ErrDeadlineExceeded), Timeout, "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"},
		{errors.New("stream error: stream ID 1; REFUSED_STREAM; received from peer"), Connection, "the upstream reset the HTTP/2 stream (REFUSED_STREAM)"},
		{errors.New("http2: client conn is closed"), Connection, "the upstream closed the connection"},
		{errors.New("SECRET"), Connection, "no usable response"},
		{badCert(x509.HostnameError{Certificate: &x509.Certificate{}}), Connection, "TLS: the upstream's certificate is for another name"},
		{badCert(x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{NotBefore: time.Now().Add(time.Hour)}}),
			Connection, "TLS: the upstream's certificate is not valid yet"},
		{badCert(x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{}}), Connection, "TLS: the upstream's certificate has expired"},
		{badCert(x509.UnknownAuthorityError{}), Connection, "TLS: the upstream's certificate is not trusted"},
	} {
		got := classify(tc.err)
		assert.Equal(t, got.Kind, tc.kind, "%v", tc.err)
		assert.Equal(t, got.Reason, tc.reason, "%v", tc.err)
		assert.Assert(t, !strings.Contains(got.Error(), "SECRET"), "%v", got)
		assert.ErrorIs(t, got, tc.err)
	}
}
