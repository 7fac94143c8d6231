package doctor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// hint says where to look for an error of the transport, by the step that failed.
func (e *examination) hint(step string) string {
	var notTLS tls.RecordHeaderError
	switch {
	case step == "proxy":
		return "HTTPS_PROXY or HTTP_PROXY names a proxy that cannot be reached or refuses the upstream; NO_PROXY exempts names from it"
	case step == "dns":
		return "is upstream_url spelt right, and does this machine resolve other names?" +
			inCluster(" Does the NetworkPolicy allow UDP and TCP port 53 to the cluster's DNS?")
	case step == "connect" && errors.Is(e.detail, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on %s, or a firewall refuses it: is upstream_url's port right, and does its server run?", e.address()) +
			inCluster(" Does the NetworkPolicy allow it?")
	case step == "connect":
		return fmt.Sprintf("is there a way to %s, and no firewall in it? If this network needs a proxy, is HTTPS_PROXY set?", e.address()) +
			inCluster(" Does the NetworkPolicy allow it?")
	case step == "tls" && errors.As(e.detail, &notTLS):
		return fmt.Sprintf("%s does not speak TLS: is it http://, or another port?", e.address())
	case step == "tls":
		return "something on the way may intercept TLS; SSL_CERT_FILE can name its CA (on a Mac the keychain holds it). Is the clock right?"
	case e.wantsTLS():
		return fmt.Sprintf("%s speaks TLS: upstream_url must begin with https://", e.address())
	}
	return "the connection stood and then broke; look at what lies between here and the upstream, and at the API's status page"
}

// answerHint says what an answer that is not the API's refusal means. kind is the type in an error of the API's shape.
func (e *examination) answerHint(resp *http.Response, kind string) string {
	location, _ := resp.Location()
	switch {
	case kind == "proxy_error":
		return "this is another anthropic-oauth-proxy, or this one: upstream_url must lead to the API. Why that one cannot reach it, its own --doctor says"
	case kind != "" && (resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests):
		return "the way is clear, the API has trouble; see its status page and try again"
	case kind != "":
		return "the API, or a gateway like it, refuses this path or this network: is the path in upstream_url right?"
	case location != nil:
		return fmt.Sprintf("it redirects to %s://%s, and redirects are not followed: is that the right upstream_url?", location.Scheme, location.Host)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return "HTTP_PROXY names a proxy that wants credentials: http://user:password@host:port"
	case e.wantsTLS():
		return fmt.Sprintf("%s speaks TLS: upstream_url must begin with https://", e.address())
	}
	return "something else answered in the API's place: a filter, a captive portal, or upstream_url points elsewhere"
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

// wantsTLS reports whether the upstream is http:// and its port speaks TLS. Nothing is sent over that connection.
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
