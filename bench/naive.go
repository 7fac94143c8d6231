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
	"strconv"
)

const naiveCommand = "naive"

// naive starts this program again, as a proxy that speaks the given protocol to the upstream.
func naive(protocol string) func(*rig, place, string) *exec.Cmd {
	return func(r *rig, p place, _ string) *exec.Cmd {
		return exec.Command(r.self, naiveCommand, protocol, strconv.Itoa(p.Port), strconv.Itoa(p.UpstreamPort), p.CA)
	}
}

// serveNaive is the proxy that comes to mind first: net/http/httputil's, told to flush, to keep its connections, and to
// log.
func serveNaive(args []string) error {
	protocol, port, upstreamPort, caFile := args[0], args[1], args[2], args[3]
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("no certificate in %s", caFile)
	}
	upstream := &url.URL{Scheme: "https", Host: "127.0.0.1:" + upstreamPort}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "localhost"},
		MaxIdleConnsPerHost: 4096,
		Protocols:           new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(protocol == "h1")
	transport.Protocols.SetHTTP2(protocol == "h2")
	access := log.New(os.Stdout, "", log.LstdFlags)
	return http.ListenAndServe("127.0.0.1:"+port, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Header.Add("anthropic-beta", "oauth-2025-04-20")
		},
		Transport:     transport,
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			access.Print(res.Request.Method, " ", res.Request.URL.Path, " ", res.StatusCode)
			return nil
		},
	})
}
