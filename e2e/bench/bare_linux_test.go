package bench

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
)

const bareName = "ReverseProxy"

// bareCommand starts this test binary again, this time as the bare proxy.
func bareCommand(p place, _ string) *exec.Cmd {
	return exec.Command(self, bareName, p.Addr, p.Upstream, p.CA)
}

// serveBare runs net/http/httputil's proxy. It flushes, keeps its connections, logs, and speaks HTTP/2 to the upstream.
func serveBare(addr, upstream, caFile string) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("no certificate in %s", caFile)
	}
	access := log.New(os.Stdout, "", log.LstdFlags)
	return http.ListenAndServe(addr, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: upstream})
			r.Out.Header.Add("anthropic-beta", "oauth-2025-04-20")
		},
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "localhost"},
			MaxIdleConnsPerHost: 4096,
			ForceAttemptHTTP2:   true,
		},
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			access.Print(res.Request.Method, " ", res.Request.URL.Path, " ", res.StatusCode)
			return nil
		},
	})
}
