package proxy

import (
	"net/http"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// locate finds the request's URL at the upstream. It refuses CONNECT, because this is not a forward proxy, and targets without a path
// (contract rows 1.1 and 1.2).
func (p *proxy) locate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		if r.ProtoMajor != 1 { // net/http hands the preface of HTTP/2, "PRI * HTTP/2.0", to the handler
			p.refuse(w, x, http.StatusHTTPVersionNotSupported, "this port speaks HTTP/1.1, not HTTP/2 without TLS")
			return
		}
		if r.Method == http.MethodConnect {
			w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
			p.refuse(w, x, http.StatusMethodNotAllowed, "CONNECT is not supported: this is not a forward proxy")
			return
		}
		url, err := target.Join(p.Upstream, r.RequestURI, r.URL)
		if err != nil {
			p.refuse(w, x, http.StatusBadRequest, err.Error())
			return
		}
		x.upstreamURL = url
		next.ServeHTTP(w, r)
	})
}
