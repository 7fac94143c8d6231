package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// hint returns where to look for an error of the transport. step is the step that failed.
func (e *examination) hint(step string) string {
	var notTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case step == "proxy" && errors.As(e.detail, &certificate):
		return "this is the certificate of the proxy that HTTPS_PROXY or HTTP_PROXY names: " + certificateHint(certificate.Err)
	case step == "tls" && errors.As(e.detail, &certificate):
		return "this is the upstream's certificate, or that of something in between: " + certificateHint(certificate.Err)
	case step == "proxy":
		return "HTTPS_PROXY or HTTP_PROXY names a proxy that cannot be reached or refuses the upstream; NO_PROXY exempts names from it"
	case step == "dns":
		return "is upstream_url spelt right, and does this machine resolve other names?" +
			inCluster(" Does the NetworkPolicy allow UDP and TCP port 53 to the cluster's DNS?")
	case step == "connect" && errors.Is(e.detail, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on %s, or a firewall refuses it: is upstream_url's port right, and does its server run?", e.address()) +
			inCluster(" Does the NetworkPolicy allow it?")
	case step == "connect":
		return fmt.Sprintf("is there a route to %s, and no firewall that blocks it? If this network needs a proxy, is HTTPS_PROXY set?", e.address()) +
			inCluster(" Does the NetworkPolicy allow it?")
	case step == "tls" && errors.As(e.detail, &notTLS):
		return fmt.Sprintf("%s does not speak TLS: is it http://, or another port?", e.address())
	case step == "tls":
		return "the two sides do not agree on TLS; something in between may intercept it"
	case e.wantsTLS():
		return fmt.Sprintf("%s speaks TLS: upstream_url must begin with https://", e.address())
	}
	return "the connection was made and then broke; look at firewalls and proxies between here and the upstream, and at the API's status page"
}

// answerHint explains an answer that is not the API's refusal. kind is the type if the answer has the shape of an API error.
func (e *examination) answerHint(resp *http.Response, kind string) string {
	location, _ := resp.Location()
	switch {
	case kind == "proxy_error":
		return "this is another anthropic-oauth-proxy, or this one: upstream_url must lead to the API. If it is another one, run its --doctor"
	case kind != "" && (resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests):
		return "the connection works, but the API has trouble; see its status page and try again"
	case kind != "":
		return "the API, or a gateway like it, refuses this path or this network: is the path in upstream_url right?"
	case location != nil:
		return fmt.Sprintf("it redirects to %s://%s, and redirects are not followed: is that the right upstream_url?", location.Scheme, location.Host)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return "HTTP_PROXY names a proxy that wants credentials: http://user:password@host:port"
	case e.wantsTLS():
		return fmt.Sprintf("%s speaks TLS: upstream_url must begin with https://", e.address())
	}
	return "something other than the API answered: a filter, a captive portal, or upstream_url points elsewhere"
}

// certificateHint returns what to do about a certificate that was refused for this reason.
func certificateHint(err error) string {
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &wrongName):
		return "it is for another name: is the host name right?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return "it is not valid yet, only from " + invalid.Cert.NotBefore.UTC().Format(time.RFC3339) + ": is this machine's clock right?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it expired at " + invalid.Cert.NotAfter.UTC().Format(time.RFC3339) + " and must be renewed, or this machine's clock is wrong"
	}
	return "its CA is not trusted here. SSL_CERT_FILE can name a file with the CA's certificate " +
		"(on macOS and Windows add it to the system's own store, SSL_CERT_FILE is ignored). If no CA of yours is expected, something intercepts TLS"
}

func inCluster(hint string) string {
	if os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return ""
	}
	return hint
}

// address is the upstream's host:port.
func (e *examination) address() string {
	return net.JoinHostPort(e.upstream.Hostname(), target.Port(e.upstream))
}

// wantsTLS reports whether the upstream is http:// but its port speaks TLS. It sends no request over that connection.
func (e *examination) wantsTLS() bool {
	if e.proxied || e.upstream.Scheme != "http" {
		return false
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", e.address(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
