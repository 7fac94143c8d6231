//go:build linux

package main

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

// bareCommand starts this program again, as that proxy.
func bareCommand(r *rig, p place, _ string) *exec.Cmd {
	return exec.Command(r.self, bareName, p.Addr, p.Upstream, p.CA)
}

// serveBare is the proxy that comes to mind first: net/http/httputil's, told to flush, to keep its connections, and to log. It
// speaks HTTP/2 to the upstream.
func serveBare(args []string) error {
	addr, caFile := args[0], args[2]
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
			r.SetURL(&url.URL{Scheme: "https", Host: args[1]})
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
